"""Tests, mirroring the sources; `make test` runs them."""
