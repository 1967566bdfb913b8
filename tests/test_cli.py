"""The command line: what is printed, what is written, and exit code 2 with a message for bad input."""

from __future__ import annotations

import importlib
import json
import struct
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from firmware import cli, compiler
from firmware.cli import compile as compile_command
from firmware.cli import main
from firmware.image_file import read_image
from firmware.link import hash_text
from hdl.config import CONFIGS, TINY

from .util_models import Spec, edit_config, write_model, write_tokenizer

SPEC = Spec(vocab=300, d=16, layers=2, heads=4, kv_heads=2, head_dim=4, experts=3, ffn=16, context=32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither use nor fill the working tree's cache; they share one of their own."""
    folder = tmp_path_factory.getbasetemp() / "cli-cache"
    monkeypatch.setattr(compile_command, "CACHE", folder)


def lpu(*arguments: object) -> Result:
    """Run a command; an exception that is no user error is a failure of the test."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def good(*arguments: object) -> str:
    """Standard output of a command that must succeed."""
    result = lpu(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def bad(*arguments: object) -> str:
    """Standard error of a command that must report bad input, and print nothing else."""
    result = lpu(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that fits the tiny configuration."""
    return write_tokenizer(write_model(tmp_path_factory.mktemp("cli") / "random", SPEC))


@pytest.fixture
def image(model: Path, tmp_path: Path) -> Path:
    """Its image."""
    good("compile", model, "-o", tmp_path / "m.lpu", "--config", "tiny")
    return tmp_path / "m.lpu"


def row(text: str, name: str) -> list[str]:
    """Cells of the first line of a table that begins with ``name``."""
    for line in text.splitlines():
        if line.strip().startswith(name):
            return line.replace(name, "", 1).split()
    raise AssertionError(f"no line {name!r} in\n{text}")


# ----------------------------------------------------------------------------------------------------- group


def test_help() -> None:
    """Every command is listed; its help has an example and exits with 0."""
    text = good("--help")
    assert "Exit codes: 0 ok, 1 a result differs, 2 bad input" in text
    for name in ("compile", "info", "asm", "disasm", "generate", "chat", "listen", "load", "program"):
        assert f"\n  {name} " in text
        assert f"Example: lpu {name} " in good(name, "--help")


def test_listed_commands_exist() -> None:
    """Each name in the table that has a file has a command in it."""
    group = cli.main
    assert isinstance(group, cli.Commands)
    for name in group.list_commands(click.Context(group)):
        assert importlib.import_module(cli.COMMANDS[name]).command.name == name
    assert {"compile", "info", "asm", "disasm"} < set(cli.COMMANDS)
    assert len(set(cli.COMMANDS.values())) == len(cli.COMMANDS)


def test_version() -> None:
    """A line."""
    assert good("--version").startswith("lpu ")


def test_usage_errors() -> None:
    """Unknown commands and options, and missing ones, are bad input, too."""
    assert "No such command 'fly'" in bad("fly")
    assert "No such option" in bad("info", "--fly", "x")
    assert "give an IMAGE or --port" in bad("info")
    assert "Missing argument" in bad("disasm")
    assert "Missing option '-o'" in bad("compile", "x")


def test_interrupted(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    """Ctrl-C is neither success nor a wrong result, and leaves no file."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compile_command, "compile_model", interrupt)
    result = lpu("compile", model, "-o", tmp_path / "m.lpu", "--config", "tiny")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------- compile


def test_compile(model: Path, tmp_path: Path) -> None:
    """The tables say what the image says."""
    path = tmp_path / "m.lpu"
    text = good("compile", model, "-o", path, "--config", "tiny", "--weights", "int4")
    found = read_image(path, TINY)
    assert row(text, "weight words per column")[1] == "2,048"
    assert row(text, "router")[:2] == ["2", "int8"]
    assert row(text, "gate")[:2] == ["6", "int4"]
    for position in (0, 31):
        cycles = row(text, str(position))
        assert cycles[0] == f"{found.cycles(position):,}"
        assert cycles[2] == f"{found.cycles(position, sampled=False):,}"
    assert f"{found.shape.parameters_total:,} parameters" in text
    assert str(path) in text


def test_compile_report(model: Path, tmp_path: Path) -> None:
    """``--report`` lists every tensor."""
    text = good("compile", model, "-o", tmp_path / "m.lpu", "--config", "tiny", "--report")
    for name in ("layers.0.q", "layers.1.router", "layers.1.down.2", "embed", "lm_head"):
        width, snr = row(text, f"{name} ")
        assert width == ("int8" if name.endswith("router") else "int4")
        assert float(snr) > 10


def test_compile_int8_is_more_accurate(model: Path, tmp_path: Path) -> None:
    """Width by number and by name; int8 has the smaller error."""
    snr = {}
    for weights in ("4", "8"):
        text = good(
            "compile", model, "-o", tmp_path / "m.lpu", "--config", "tiny", "--weights", weights, "--report"
        )
        snr[weights] = float(row(text, "layers.0.q ")[1])
    assert snr["8"] > snr["4"] + 15
    assert read_image(tmp_path / "m.lpu").weights == 8


def test_compile_again_is_the_same_file(image: Path, model: Path, tmp_path: Path) -> None:
    """With the cache and without."""
    for option in ([], ["--no-cache"]):
        good("compile", model, "-o", tmp_path / "again.lpu", "--config", "tiny", *option)
        again, first = read_image(tmp_path / "again.lpu"), read_image(image)
        assert list(again.parts()) == list(first.parts())
        assert again.meta == first.meta


def test_compile_bad_input(model: Path, tmp_path: Path) -> None:
    """Each of these is the user's to mend, and none writes a file."""
    out = tmp_path / "m.lpu"
    assert "no folder with a config.json" in bad("compile", tmp_path / "none", "-o", out)
    assert f"unknown config 'huge'; known: {', '.join(CONFIGS)}" in bad(
        "compile", model, "-o", out, "--config", "huge"
    )
    assert "weights 'int2': int4 or int8" in bad("compile", model, "-o", out, "--weights", "int2")
    assert "cannot be written" in bad("compile", model, "-o", tmp_path / "none" / "m.lpu")
    assert "cannot be written" in bad("compile", model, "-o", tmp_path)
    broken = write_model(tmp_path / "broken", SPEC)
    edit_config(broken, hidden_act="gelu")
    assert "field hidden_act: 'gelu' is not supported" in bad("compile", broken, "-o", out)
    edit_config(broken, hidden_act="silu")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "truncated" in bad("compile", broken, "-o", out)
    weights.unlink()
    assert "neither model.safetensors nor" in bad("compile", broken, "-o", out)
    other = write_tokenizer(write_model(tmp_path / "other", SPEC, vocab=64))
    assert "this tokenizer belongs to another model" in bad("compile", other, "-o", out)
    assert not out.exists()


def test_compile_too_large(tmp_path: Path) -> None:
    """Needs and what there is, memory by memory, and no file."""
    folder = write_model(tmp_path / "m", SPEC.with_(d=64, ffn=128, layers=3, context=128))
    error = bad("compile", folder, "-o", tmp_path / "m.lpu", "--config", "tiny")
    assert "the model does not fit config tiny" in error
    for memory in ("weight words per column", "scale rows", "vector rows", "positions"):
        assert row(error, memory)[0] == "needs" and row(error, memory)[2] == "has"
    assert row(error, "weight words per column")[-2:] == ["too", "small"]
    assert not (tmp_path / "m.lpu").exists()


def test_compile_never_simulates(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cycle counts are computed: neither the machine nor the reference runs."""
    monkeypatch.setattr("sim.machine.Machine.run", None)
    monkeypatch.setattr("sim.reference.Reference.forward", None)
    monkeypatch.setattr("sim.verilator.VerilatorModel.__init__", None)
    good("compile", model, "-o", tmp_path / "m.lpu", "--config", "tiny", "--no-cache")


# ---------------------------------------------------------------------------------------------- info, damage


def test_info(image: Path) -> None:
    """What it is, its sections, its cycles."""
    text = good("info", image)
    assert "tiny: 4 columns x 8 lanes, 64 int4 or 32 int8 MACs per cycle" in text
    assert "random (MixtralForCausalLM)" in text
    assert "d 16, 2 layers, 4 heads of 4 on 2 KV heads, 3 experts, top 2, ffn 16" in text
    found = read_image(image)
    assert f"{found.shape.parameters_total:,} in all" in text
    assert hash_text(found.identity) in text
    assert row(text, "0 ")[0] == f"{found.cycles(0):,}"
    assert row(text, "WEIGHT")[0] == "4"
    assert row(text, "TOKENIZER") == [f"{len(found.tokenizer or b''):,}"]


@pytest.mark.parametrize("command", ["info", "disasm"])
def test_damaged_image(command: str, image: Path) -> None:
    """A flipped bit in each section, a cut, another format: exit code 2, the section named."""
    whole = image.read_bytes()
    _, _, offset, length, _ = struct.unpack_from("<8sIQQI", whole)
    for entry in json.loads(whole[offset : offset + length])["sections"]:
        at = entry["offset"] + entry["length"] // 2
        image.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert f"{image}: section {entry['name']} is damaged (checksum)" in bad(command, image)
    image.write_bytes(whole[:-1])
    assert "truncated" in bad(command, image)
    image.write_bytes(b"something else entirely, and not an image")
    assert "is not an LPU image" in bad(command, image)
    image.unlink()
    assert "no such file" in bad(command, image)


# ----------------------------------------------------------------------------------------------- asm, disasm


def test_disasm_and_asm(image: Path, tmp_path: Path) -> None:
    """Image -> text -> program -> the same text and the same words."""
    text = good("disasm", image)
    assert "PHASE dur=" in text and "ABC.GATHER" in text and "; LM head" in text
    source, program, again = (tmp_path / n for n in ("p.s", "p.lpu", "again.s"))
    good("disasm", image, "-o", source)
    assert source.read_text() == text
    for option in ([], ["--config", "tiny"]):
        assert "for tiny" in good("asm", source, *option, "-o", program)
        good("disasm", program, "-o", again)
        assert again.read_text() == text
    kept = {s.name: s.data.tobytes() for s in read_image(image).sections}
    for s in read_image(program).sections:
        assert kept[s.name] == s.data.tobytes()
    assert "a program without a model, from p.s" in good("info", program)


def test_asm_bad_input(tmp_path: Path) -> None:
    """Messages have file and line; nothing is written."""
    source, out = tmp_path / "p.s", tmp_path / "p.lpu"
    source.write_text("PHASE dur=5 final\n  SR.RUN s=5000\n")
    assert f"{source}:2: SR: s = 5000 is outside 0..1023" in bad("asm", source, "--config", "tiny", "-o", out)
    assert "names no configuration" in bad("asm", source, "-o", out)
    source.write_text(".config tiny\nPHASE dur=5 final\n  SR.RUN @2\n")
    refused = bad("asm", source, "-o", out)
    assert f"{source}: phase 0: 5 cycles, the shortest phase has 7" in refused
    assert f"{source}: phase 0: SR @2: can issue from cycle 6 on" in refused
    source.write_text(".config tiny\nPHASE dur=7 final\n")
    assert f"{source}:1: the program is for config 'tiny'" in bad(
        "asm", source, "--config", "large", "-o", out
    )
    assert "cannot be written" in bad("asm", source, "-o", tmp_path / "none" / "p.lpu")
    assert "cannot be read as text" in bad("asm", tmp_path / "none.s", "-o", out)
    source.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in bad("asm", source, "--config", "tiny", "-o", out)
    source.write_text(".config huge\n")
    assert "unknown config 'huge'" in bad("asm", source, "-o", out)
    assert not out.exists()


def test_disasm_cannot_write(image: Path, tmp_path: Path) -> None:
    """A text file that cannot be written."""
    assert "cannot be written" in bad("disasm", image, "-o", tmp_path / "none" / "p.s")


def test_defects_keep_their_traceback(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only user errors become messages."""
    monkeypatch.setattr("firmware.cli.info.describe_sections", None)
    with pytest.raises(TypeError):
        lpu("info", image)


def test_weights_of_the_report_are_those_of_the_compiler(model: Path) -> None:
    """The summary in an image counts what the table lists."""
    result = compiler.compile_model(model, TINY, 4, cache=None)
    summary = compiler.report_summary(result.report)
    assert summary["int4"] + summary["int8"] == summary["tensors"] == len(result.report)
