"""Everything that runs on the host: from a checkpoint to an image, and from a prompt to a text."""
