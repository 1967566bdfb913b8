"""Training of the checkpoints under `firmware/models/` (torch lives here and nowhere else)."""
