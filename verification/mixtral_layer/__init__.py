"""A decoder layer of Mixtral-8x7B at full size: in RTL, against the integer reference and against transformers."""
