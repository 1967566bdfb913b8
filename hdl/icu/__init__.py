"""ICU: instruction queues, sequencer, base registers. Nothing in it depends on data but token, experts, position."""

from .icu import Icu

__all__ = ["Icu"]
