"""MXM: the systolic matrix tile of ``vlanes`` superlanes with ``columns / vlanes`` columns each."""

from .tile import Mxm

__all__ = ["Mxm"]
