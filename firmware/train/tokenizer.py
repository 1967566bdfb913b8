"""Tokenizers of the shipped models, made with the `tokenizers` library.

One token, id 0, is the blank line between documents: it ends a text (`eos_token_id`), and it is an
ordinary added token, so that `encode` of a plain text file gives exactly the ids that were trained on and
`decode` gives the file back. A prompt needs nothing in front.

The alphabet is printable ASCII and the line feed, not all 256 bytes: with a vocabulary of 512 the other
160 bytes would take almost a third of the table (2.63 instead of 3.12 characters per token on the
stories). Curly quotes, long dashes and accents are mapped to ASCII; what is left becomes `<|unk|>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from firmware.train.textfiles import SEPARATOR

END = SEPARATOR
END_ID = 0
UNKNOWN = "<|unk|>"
UNKNOWN_ID = 1
_ASCII_FOR = {
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
}


def _normaliser() -> normalizers.Normalizer:
    replace = [normalizers.Replace(fancy, plain) for fancy, plain in _ASCII_FOR.items()]
    return normalizers.Sequence([*replace, normalizers.NFD(), normalizers.StripAccents()])


def _mark_added_tokens_plain(tokenizer: Tokenizer) -> Tokenizer:
    """Trainers mark their reserved tokens as special, which `decode` would drop: keep the blank line."""
    description = json.loads(tokenizer.to_str())
    for token in description["added_tokens"]:
        token["special"] = token["id"] == UNKNOWN_ID
    return Tokenizer.from_str(json.dumps(description))


def _reserved() -> list[AddedToken]:
    return [AddedToken(END, normalized=False), AddedToken(UNKNOWN, normalized=False)]


def train_bpe(documents: Iterable[str], vocab: int) -> Tokenizer:
    """Byte-level BPE over printable ASCII; the vocabulary has exactly `vocab` entries."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = _normaliser()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    printable = "".join(map(chr, range(0x20, 0x7F))) + "\n"
    to_visible = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(set(to_visible.pre_tokenize_str(printable)[0][0]))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=_reserved(),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"corpus too small: {tokenizer.get_vocab_size()} of {vocab} tokens")
    return _mark_added_tokens_plain(tokenizer)


def letters_tokenizer() -> Tokenizer:
    """One token per lower-case letter plus the end token: the names model. 28 entries."""
    vocab = {END: END_ID, UNKNOWN: UNKNOWN_ID} | {chr(ord("a") + i): 2 + i for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([_normaliser(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(_reserved())
    return _mark_added_tokens_plain(tokenizer)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
