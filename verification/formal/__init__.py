"""Formal proofs of the HDL: harnesses, their registry and the runner (`docs/formal.md`)."""
