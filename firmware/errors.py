"""Errors that a user can cause and can mend.

Everything that is wrong with an input (a file, a field of `config.json`, a tensor, a prompt, a frame) raises
`LpuError` or a subclass. The command line prints the message and exits with code 2; any other exception is a
defect of this program and keeps its traceback.
"""

from __future__ import annotations


class LpuError(Exception):
    """Bad input. The message names the file, field, tensor or frame, what was found, and what to do."""


class DamagedMemoryError(LpuError):
    """A run that the LPU ended because a word of its memory could not be corrected. What it told before is right."""


class CheckpointError(LpuError):
    """A checkpoint folder that cannot be read: a missing, damaged, unsupported or inconsistent part."""


class TokenizerError(LpuError):
    """A tokenizer that is missing where text is needed, unreadable, or does not fit its model."""
