"""The tokenizer of a GGUF file as the files of a Hugging Face folder: byte-level BPE, special tokens, chat template.

Fields: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Tokenizer". How text is cut into words before the
merges is not in the file: `tokenizer.ggml.pre` names a rule, and the rules known here are those of `_SPLITS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .errors import CheckpointError

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_SPLITS: dict[str, Callable[[], Any]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    # SmolLM and SmolLM2: each digit by itself, then GPT-2's expression.
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}

Field = Callable[..., Any]
"""``field(name, default)``: a metadata value; without a default a missing one raises CheckpointError."""


def tokenizer_json(field: Field, file: str) -> str:
    """`tokenizer.json` of the metadata. Raises CheckpointError for a kind that is not byte-level BPE."""
    kind, split = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2":
        raise CheckpointError(f"{file}: field tokenizer.ggml.model: {kind!r} is not supported, only 'gpt2'")
    if split not in _SPLITS:
        known = ", ".join(sorted(_SPLITS))
        raise CheckpointError(f"{file}: field tokenizer.ggml.pre: {split!r} is not supported; known: {known}")
    tokens: list[str] = field("tokenizer.ggml.tokens")
    types: list[int] = field("tokenizer.ggml.token_type", [1] * len(tokens))
    merges: list[tuple[str, str]] = []
    for i, line in enumerate(field("tokenizer.ggml.merges")):
        left, space, right = line.partition(" ")
        if not space:
            raise CheckpointError(f"{file}: field tokenizer.ggml.merges: entry {i} is {line!r}, two parts are needed")
        merges.append((left, right))
    try:
        made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{file}: field tokenizer.ggml.merges: {error}") from None
    made.pre_tokenizer = _SPLITS[split]()
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, types, strict=True) if k == _CONTROL])
    made.add_tokens([AddedToken(t) for t, k in zip(tokens, types, strict=True) if k == _USER_DEFINED])
    return str(made.to_str(pretty=True))


def tokenizer_config(field: Field) -> dict[str, Any]:
    """`tokenizer_config.json`: start token, names of the special tokens, chat template."""
    tokens: list[str] = field("tokenizer.ggml.tokens")

    def name(kind: str) -> str | None:
        token = field(f"tokenizer.ggml.{kind}_token_id", None)
        return tokens[token] if token is not None and token < len(tokens) else None

    made = {
        "add_bos_token": bool(field("tokenizer.ggml.add_bos_token", False)),
        "bos_token": name("bos"),
        "eos_token": name("eos"),
        "unk_token": name("unknown"),
        "pad_token": name("padding"),
        "chat_template": field("tokenizer.chat_template", None),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {key: value for key, value in made.items() if value is not None}
