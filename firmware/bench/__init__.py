"""What a token costs, where its cycles go, and what else runs the same model on this machine (``make bench``)."""
