"""What it would take to serve a model: cycles from the scheduler, links estimated (``lpu plan``)."""
