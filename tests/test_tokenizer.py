"""Text to ids and back, text as it comes, and folders whose tokenizer is missing or wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from firmware.errors import LpuError, TokenizerError
from firmware.tokenizer import Tokenizer
from tests.util_models import edit_config, write_model, write_tokenizer

TEXT = "the cat söt on 日本 and the 🎉🎉 dog\nran"


def folder_with(tmp_path: Path, vocab: int = 300) -> Path:
    return write_tokenizer(write_model(tmp_path, vocab=vocab))


def test_round_trip(tmp_path: Path) -> None:
    tokenizer = Tokenizer(folder_with(tmp_path), 300)
    ids = tokenizer.encode(TEXT)
    assert tokenizer.available and tokenizer.decode(ids) == TEXT
    assert tokenizer.decode([*ids, 2]) == TEXT
    assert tokenizer.decode([*ids, 2], special=True) == TEXT + "</s>"


def test_stream_emits_whole_characters_only(tmp_path: Path) -> None:
    tokenizer = Tokenizer(folder_with(tmp_path), 300)
    stream = tokenizer.stream()
    pieces = [stream.step(token) for token in tokenizer.encode(TEXT)]
    assert "".join(pieces) == TEXT and stream.finish() == ""
    assert "" in pieces  # a character of several tokens was held back
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces[0] == "the"  # and the rest was not


def test_stream_of_broken_bytes_equals_the_whole_decoded(tmp_path: Path) -> None:
    tokenizer = Tokenizer(folder_with(tmp_path), 300)
    for seed in range(20):
        ids = np.random.default_rng(seed).integers(3, 290, size=60).tolist()
        ids = [
            i for i in ids if i < len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"])
        ]
        stream = tokenizer.stream()
        text = "".join(stream.step(token) for token in ids) + stream.finish()
        assert text == tokenizer.decode(ids)


def test_unfinished_character_shows_at_the_end(tmp_path: Path) -> None:
    tokenizer = Tokenizer(folder_with(tmp_path), 300)
    ids = tokenizer.encode("a🎉")[:-1]
    stream = tokenizer.stream()
    assert "".join(stream.step(token) for token in ids) == "a"
    assert stream.finish().startswith("\ufffd")


def test_stop_ids(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    assert Tokenizer(folder, 300).stop_ids == {2}
    edit_config(folder, eos_token_id=[2, 5, 70000])
    assert Tokenizer(folder, 300).stop_ids == {2, 5}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert Tokenizer(folder, 300).stop_ids == {7}
    edit_config(folder, eos_token_id=None)
    (folder / "generation_config.json").unlink()
    assert Tokenizer(folder, 300).stop_ids == frozenset()


def test_start_token_where_the_folder_asks_for_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    plain = Tokenizer(folder, 300).encode("the cat")
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    tokenizer = Tokenizer(folder, 300)
    assert tokenizer.encode("the cat") == [1, *plain]
    assert tokenizer.encode("the cat", special=False) == plain
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


def test_without_a_tokenizer_only_text_fails(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_model(tmp_path), 64)
    assert not tokenizer.available and tokenizer.stop_ids == {2}
    tokenizer.check([0, 63])
    for use in (lambda: tokenizer.encode("x"), lambda: tokenizer.decode([1]), tokenizer.stream):
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            use()


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    with pytest.raises(LpuError, match="vocab_size is 200"):
        Tokenizer(folder, 200)


@pytest.mark.parametrize("token", [-1, 300])
def test_ids_outside_the_vocabulary_are_named(token: int, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=f"token id {token} at place 2"):
        Tokenizer(folder_with(tmp_path), 300).decode([5, 6, token])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}'])
def test_unreadable_tokenizer(text: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer(folder, 64)
