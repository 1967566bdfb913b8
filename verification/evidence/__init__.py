"""What the long verification runs found: kept records, and the page that is made of them."""

from __future__ import annotations

from .record import Record, begin, write

__all__ = ["Record", "begin", "write"]
