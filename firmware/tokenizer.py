"""Text to token ids and back, through the folder's `tokenizer.json` and the `tokenizers` library.

A folder without a tokenizer still works with ids: only asking for text is an error then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Library

from firmware.chat_template import read_template, render
from firmware.errors import TokenizerError


class StreamDecoder:
    """Turns token ids into text as they come, never emitting half of a character.

    A byte-level token may end inside a UTF-8 sequence; its text is held back until later tokens complete
    it. Only a short window is decoded at each step: the last tokens already shown, as context (some
    decoders treat the first token differently), and those not yet shown.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # context tokens, then pending tokens
        self._shown = 0  # number of context tokens at the front of the window

    def step(self, token: int) -> str:
        """Text that `token` completes; empty while a character is incomplete."""
        self._window.append(token)
        return self._emit(final=False)

    def finish(self) -> str:
        """Text still held back, with U+FFFD for bytes that never became a character."""
        return self._emit(final=True)

    def _emit(self, final: bool) -> str:
        before = self._tokenizer.decode(self._window[: self._shown])
        text = self._tokenizer.decode(self._window)
        if text.endswith("\ufffd") and not final:
            return ""
        if len(text) > len(before) or final:
            self._window = self._window[self._shown :]
            self._shown = len(self._window)
        return text[len(before) :]


class Tokenizer:
    """The tokenizer of a model folder.

    `vocab` is the model's vocabulary size; a tokenizer with an id at or above it raises TokenizerError.
    `stop_ids` are the token ids that end a text: those of `generation_config.json`, else of `config.json`.
    """

    def __init__(self, folder: str | Path, vocab: int) -> None:
        self.path = Path(folder)
        self.vocab = vocab
        self.stop_ids = self._stop_ids()
        file = self.path / "tokenizer.json"
        self._library: Any = None
        self._bos: int | None = None
        if not file.exists():
            return
        try:
            self._library = _Library.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{file}: cannot be read as a tokenizer: {error}") from None
        ids = self._library.get_vocab(with_added_tokens=True)
        token = max(ids, key=lambda t: int(ids[t]), default=None)
        if token is not None and ids[token] >= vocab:
            raise TokenizerError(
                f"{file}: token {token!r} has id {ids[token]}, but the model's vocab_size is {vocab}; "
                f"this tokenizer belongs to another model"
            )
        if self._json("tokenizer_config.json").get("add_bos_token") is True:
            bos = self._json("config.json").get("bos_token_id")
            self._bos = bos if isinstance(bos, int) and 0 <= bos < vocab else None

    def _json(self, name: str) -> dict[str, Any]:
        """An optional JSON object of the folder; empty if it is not there."""
        file = self.path / name
        if not file.exists():
            return {}
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise TokenizerError(f"{file}: cannot be read as JSON: {error}") from None
        return value if isinstance(value, dict) else {}

    def _stop_ids(self) -> frozenset[int]:
        for name in ("generation_config.json", "config.json"):
            value = self._json(name).get("eos_token_id")
            if value is not None:
                items = value if isinstance(value, list) else [value]
                return frozenset(t for t in items if isinstance(t, int) and 0 <= t < self.vocab)
        return frozenset()

    @property
    def available(self) -> bool:
        """Whether the folder has a tokenizer, so that text can be used."""
        return self._library is not None

    def _need(self) -> Any:
        if self._library is None:
            raise TokenizerError(
                f"{self.path}: has no tokenizer.json, so text cannot be used here; give token ids, "
                f"or copy the model's tokenizer.json into the folder"
            )
        return self._library

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds the start token where the tokenizer's own files ask for it.

        Raises TokenizerError without a tokenizer.
        """
        ids = list(self._need().encode(text, add_special_tokens=special).ids)
        if special and self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def chat(self, prompt: str) -> list[int] | None:
        """Token ids that a chat model answers ``prompt`` after; None where the folder has no chat template.

        Raises TokenizerError without a tokenizer, or for a template that fails.
        """
        template = read_template(self.path)
        if template is None:
            return None
        text = render(self.path, template, [{"role": "user", "content": prompt}])
        return list(self._need().encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Text of token ids; `special` also writes out tokens such as the end mark.

        Raises TokenizerError without a tokenizer or for an id outside the vocabulary.
        """
        library = self._need()
        self.check(ids)
        return str(library.decode([int(i) for i in ids], skip_special_tokens=not special))

    def check(self, ids: Sequence[int]) -> None:
        """Raise TokenizerError for the first id outside the model's vocabulary."""
        for place, token in enumerate(ids):
            if not 0 <= int(token) < self.vocab:
                raise TokenizerError(
                    f"token id {int(token)} at place {place} is outside the vocabulary, 0 to {self.vocab - 1}"
                )

    def stream(self) -> StreamDecoder:
        """A fresh decoder for one generated text. Raises TokenizerError without a tokenizer."""
        self._need()
        return StreamDecoder(self)
