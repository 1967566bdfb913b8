"""Image files: what is written is what is read, and nothing damaged, cut or foreign is taken for an image."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from firmware import compiler, image_file
from firmware.compiler import Compilation, compile_model, load_quantised, memory_needs, model_digest
from firmware.errors import LpuError
from firmware.image_file import Image, ImageError, ImageSection, read_image, section, write_image
from hdl.config import TINY, ULX3S_85F
from hdl.image import Param, Space, row_bytes
from hdl.isa import Queue, get_isa
from sim.machine import Machine
from sim.reference import Reference, Sampling

from .util_models import Spec, edit_config, write_model, write_tokenizer
from .util_programs import random_program, words_of

SPEC = Spec(vocab=300, d=16, layers=2, heads=4, kv_heads=2, head_dim=4, experts=3, ffn=16, context=32)
SMALL = Spec(vocab=64, d=16, layers=1, heads=4, kv_heads=2, head_dim=4, experts=2, ffn=16, context=16)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """A random model with a tokenizer, compiled for the tiny configuration."""
    folder = write_tokenizer(write_model(tmp_path_factory.mktemp("image") / "random", SPEC))
    return compile_model(folder, TINY, 4, cache=None)


@pytest.fixture(scope="module")
def written(compiled: Compilation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its image file."""
    path = tmp_path_factory.mktemp("image") / "m.lpu"
    write_image(path, compiled.image)
    return path


def directory_of(path: Path) -> dict:
    """The directory of an image file."""
    data = path.read_bytes()
    _, _, offset, length, _ = struct.unpack_from("<8sIQQI", data)
    directory: dict = json.loads(data[offset : offset + length])
    return directory


def rewrite(path: Path, directory: dict, version: int = image_file.VERSION) -> None:
    """The same sections under another directory, with right checksums."""
    data = path.read_bytes()
    _, _, offset, _, _ = struct.unpack_from("<8sIQQI", data)
    text = json.dumps(directory).encode()
    header = struct.pack("<8sIQQI", image_file.MAGIC, version, offset, len(text), zlib.crc32(text))
    path.write_bytes(header + struct.pack("<I", zlib.crc32(header)) + data[36:offset] + text)


def flip(path: Path, offset: int) -> None:
    """Damage one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    path = tmp_path / "copy.lpu"
    path.write_bytes(written.read_bytes())
    return path


# ------------------------------------------------------------------------------------------------ round trip


def test_round_trip(compiled: Compilation, written: Path) -> None:
    """Everything comes back, with and without naming the configuration."""
    for cfg in (None, TINY):
        image = read_image(written, cfg)
        assert image.cfg == TINY and image.path == written
        assert image.meta == json.loads(json.dumps(compiled.image.meta))
        assert image.tokenizer == compiled.image.tokenizer is not None
        assert list(image.parts()) == list(compiled.image.parts())
        assert [s.name for s in image.sections] == [s.name for s in compiled.image.sections]


def test_sections_are_the_lowered_ones(compiled: Compilation) -> None:
    """Nothing is lost between lowering and the image."""
    lowered = [(int(s.space), s.sub, s.address, s.data) for s in compiled.compiled.sections]
    *parts, last = compiled.image.parts()
    assert [tuple(p) for p in parts] == lowered
    identity = compiled.image.identity.to_bytes(8, "little")
    assert tuple(last) == (Space.PARAM, 0, Param.IMAGE, identity) and any(identity)


def test_identity_depends_on_every_section(compiled: Compilation, written: Path) -> None:
    """Equal images have equal identities, whatever their description; any other row is another image."""
    image = read_image(written)
    assert image.identity == compiled.image.identity == dataclasses.replace(image, meta={}).identity
    seen = {image.identity}
    for i, s in enumerate(image.sections):
        for changed in (
            dataclasses.replace(s, address=s.address + 1),
            dataclasses.replace(s, data=s.data[:-1]),
            dataclasses.replace(s, data=~s.data),
        ):
            sections = (*image.sections[:i], changed, *image.sections[i + 1 :])
            seen.add(dataclasses.replace(image, sections=sections).identity)
    assert len(seen) == 1 + 3 * len(image.sections)


def test_program(compiled: Compilation, written: Path) -> None:
    """The program decoded from the file is the one scheduled, notes included."""
    program, scheduled = read_image(written).program(), compiled.compiled.program
    assert program.phases == scheduled.phases
    isa = get_isa(TINY)
    for q in Queue:
        assert [isa.encode(i) for i in program.code[q]] == [isa.encode(i) for i in scheduled.code[q]]
        assert [i.note for i in program.code[q]] == [i.note for i in scheduled.code[q]]


def test_facts(compiled: Compilation, written: Path) -> None:
    """What an image says of its model."""
    image = read_image(written)
    assert image.shape == compiled.shape
    assert image.context == SPEC.context and image.vocab == SPEC.vocab
    assert image.weights == 4 and image.stop_ids == (2,)
    assert image.meta["parameters_total"] == compiled.shape.parameters_total
    assert image.meta["model"] == "random"
    assert image.params[Param.LAYERS] == SPEC.layers
    assert image.meta["cycles"] == {str(p): image.cycles(p) for p in (0, 31)}
    summary = image.meta["quantisation"]
    assert summary["tensors"] == len(compiled.report)
    assert summary["worst_snr_db"] == pytest.approx(min(r.snr_db for r in compiled.report), abs=0.01)


def test_cycles_are_the_machines(compiled: Compilation, written: Path) -> None:
    """The instruction-level machine, loaded with the file's parts, takes the cycles the file promises."""
    image = read_image(written)
    machine = Machine(TINY)
    for space, sub, address, data in image.parts():
        machine.load(Space(space), sub, address, data)
    prompt = [5, 17, 250]
    machine.prompt = {i: (token, 0) for i, token in enumerate(prompt)}
    machine.param |= {Param.PROMPT_LEN: 3, Param.LIMIT: 4, Param.TOPK: 1, Param.CLEAR: 1}
    machine.param |= {Param.STOP0: 1 << 31, Param.STOP1: 1 << 31}
    machine.load(Space.CONST, 0, 1, (1 << 15).to_bytes(3, "little"))
    records = list(machine.run())
    assert [r.cycles for r in records] == [image.cycles(p, p >= 2) for p in range(6)]
    assert image.cycles(0, False) < image.cycles(0, True)
    expected = Reference(compiled.qmodel).generate(prompt, 4, Sampling())
    assert [r.token for r in records if r.sampled] == expected


def test_cycles_outside_the_context(written: Path) -> None:
    """There is no token at a position that the cache does not hold."""
    image = read_image(written)
    for position in (-1, SPEC.context):
        with pytest.raises(ValueError, match="outside the context of 32"):
            image.cycles(position)


def test_a_program_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    """An image need not hold a model; what needs one says so."""
    program = random_program(TINY, rng)
    path = tmp_path / "p.lpu"
    write_image(path, Image(TINY, {}, tuple(image_file.program_sections(TINY, program))))
    image = read_image(path)
    assert words_of(TINY, image.program()) == words_of(TINY, program)
    for what in (lambda: image.cycles(0), lambda: image.context, lambda: image.vocab):
        with pytest.raises(ImageError, match=r"p\.lpu: a program without a model"):
            what()
    with pytest.raises(ImageError, match="does not say of which model"):
        _ = image.shape


def test_large_sections_are_mapped(tmp_path: Path) -> None:
    """Sections beyond a chunk, and rows that are read only when they are used."""
    size = row_bytes(ULX3S_85F, Space.WEIGHT)
    data = np.random.default_rng(1).integers(0, 256, 2560 * size, np.uint8)
    image = Image(ULX3S_85F, {}, (ImageSection(Space.WEIGHT, 3, 0, data),))
    image_file._CHUNK, chunk = 1000, image_file._CHUNK
    try:
        write_image(tmp_path / "w.lpu", image)
        found = read_image(tmp_path / "w.lpu", ULX3S_85F).sections[0]
    finally:
        image_file._CHUNK = chunk
    assert isinstance(found.data, np.memmap)
    assert np.array_equal(found.data, data)
    assert found.name == "WEIGHT 3"


# ---------------------------------------------------------------------------------------------------- damage


def test_every_section_is_checked(copy: Path) -> None:
    """A flipped bit anywhere is found, and the section named."""
    sections = directory_of(copy)["sections"]
    names = [s["name"] for s in sections]
    assert len(set(names)) == len(names)
    assert {"WEIGHT 0", "WEIGHT 3", "SCALE", "COEF", "PROGRAM ABC", "PHASE", "PARAM", "CONST"} <= set(names)
    assert names[-1] == "TOKENIZER"
    for entry in sections:
        for offset in (entry["offset"], entry["offset"] + entry["length"] - 1):
            flip(copy, offset)
            with pytest.raises(ImageError) as error:
                read_image(copy)
            assert str(error.value).startswith(f"{copy}: section {entry['name']} is damaged (checksum)")
            flip(copy, offset)
    read_image(copy)


def test_every_byte_of_header_and_directory_is_checked(copy: Path) -> None:
    """Damage outside the sections is found, too."""
    data = copy.read_bytes()
    _, _, offset, length, _ = struct.unpack_from("<8sIQQI", data)
    for at in [*range(36), *range(offset, offset + length, 97), len(data) - 1]:
        flip(copy, at)
        with pytest.raises(ImageError, match=r"copy\.lpu: .*(not an LPU image|header|version|directory)"):
            read_image(copy)
        flip(copy, at)


def test_truncated(copy: Path) -> None:
    """Any shorter file."""
    data = copy.read_bytes()
    for size in (1, 7, 8, 20, 35, 36, 1000, len(data) // 2, len(data) - 1):
        copy.write_bytes(data[:size])
        with pytest.raises(ImageError, match=r"copy\.lpu: (truncated|is not an LPU image)"):
            read_image(copy)
    copy.write_bytes(data + b"x")
    with pytest.raises(ImageError, match="1 bytes too many at the end"):
        read_image(copy)
    copy.write_bytes(b"")
    with pytest.raises(ImageError, match="is empty"):
        read_image(copy)


def test_not_an_image(tmp_path: Path) -> None:
    """Other files, no file, a folder."""
    path = tmp_path / "x.lpu"
    path.write_text("hello, this is not an image, but long enough to be one")
    with pytest.raises(ImageError, match="is not an LPU image"):
        read_image(path)
    with pytest.raises(ImageError, match=r"none\.lpu: no such file"):
        read_image(tmp_path / "none.lpu")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_newer_version(copy: Path) -> None:
    """A format from the future."""
    rewrite(copy, directory_of(copy), version=7)
    with pytest.raises(ImageError, match="has format version 7, this program reads up to 1"):
        read_image(copy)


def test_other_config(copy: Path) -> None:
    """Made for other hardware: both are named. An unknown configuration lists the known ones."""
    with pytest.raises(ImageError, match=r"for config 'tiny' \(hash \w+\), not for config 'ulx3s-85f'"):
        read_image(copy, ULX3S_85F)
    deeper = dataclasses.replace(TINY, act_depth=2 * TINY.act_depth)
    with pytest.raises(ImageError, match="not for config 'tiny'"):
        read_image(copy, deeper)
    rewrite(copy, directory_of(copy) | {"config": "huge", "config_hash": "0" * 16})
    with pytest.raises(ImageError, match=r"'huge' \(hash 0+\); this program knows tiny"):
        read_image(copy)


def test_the_name_of_a_config_does_not_matter(copy: Path) -> None:
    """Neither do a stated clock and the width of weights: the hardware is the same."""
    same = dataclasses.replace(TINY, name="mine", clock_hz=1e6, weight_bits=8)
    assert read_image(copy, same).cfg is same


def test_other_instruction_set(copy: Path) -> None:
    """Words from before a change of the instruction set are not run."""
    rewrite(copy, directory_of(copy) | {"contract": "0" * 16})
    with pytest.raises(ImageError, match="another version of the instruction set; compile it again"):
        read_image(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sub": 4}, "section WEIGHT 0: .* do not fit 4 banks"),
        ({"address": 2047}, "section WEIGHT 0: .* do not fit 4 banks of 2048 rows of 8 bytes"),
        ({"address": -1}, "section WEIGHT 0"),
        ({"offset": 1 << 40}, "section WEIGHT 0: lies outside the file"),
        ({"space": "DISK"}, "the directory is malformed"),
        ({"crc32": None}, "section WEIGHT 0 is damaged"),
        ({"length": "x"}, "the directory is malformed"),
    ],
)
def test_malformed(copy: Path, change: dict, message: str) -> None:
    """A directory with right checksums that promises nonsense."""
    directory = directory_of(copy)
    directory["sections"][0] |= change
    rewrite(copy, directory)
    with pytest.raises(ImageError, match=message):
        read_image(copy)


def test_missing_parts_of_the_directory(copy: Path) -> None:
    """A directory without what it must have."""
    for name in ("config", "config_hash", "contract", "meta", "sections"):
        directory = directory_of(copy)
        del directory[name]
        other = copy.with_name(f"{name}.lpu")
        other.write_bytes(copy.read_bytes())
        rewrite(other, directory)
        with pytest.raises(ImageError, match="malformed"):
            read_image(other)


def test_words_without_a_meaning(tmp_path: Path) -> None:
    """An undefined instruction is named by queue and place."""
    words = section(Space.PROGRAM, int(Queue.VX), 0, b"\xff" * 10)
    with pytest.raises(ImageError, match="image: section PROGRAM VX: instruction 0: VX:"):
        Image(TINY, {}, (words,)).program()
    half = section(Space.PROGRAM, int(Queue.VX), 0, bytes(5))
    with pytest.raises(ImageError, match="PROGRAM VX: 1 words, not a multiple of 2"):
        Image(TINY, {}, (half,)).program()
    late = section(Space.PROGRAM, int(Queue.VX), 2, bytes(10))
    with pytest.raises(ImageError, match="rows are missing"):
        Image(TINY, {}, (late,)).program()


# --------------------------------------------------------------------------------------------------- writing


def test_interrupted_writing_leaves_nothing(
    compiled: Compilation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle: the old file stays, nothing else does."""
    path = tmp_path / "m.lpu"
    path.write_bytes(b"old")

    write = image_file._write_data
    written: list[int] = []

    def interrupt(out: IO[bytes], data: image_file.Rows) -> dict[str, int]:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(len(data))
        return write(out, data)

    monkeypatch.setattr(image_file, "_write_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(path, compiled.image)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_cannot_write(compiled: Compilation, tmp_path: Path) -> None:
    """A folder that is not there, a folder in the way."""
    with pytest.raises(LpuError, match=r"m\.lpu: cannot be written: No such file"):
        write_image(tmp_path / "none" / "m.lpu", compiled.image)
    (tmp_path / "d").mkdir()
    with pytest.raises(LpuError, match="d: cannot be written"):
        write_image(tmp_path / "d", compiled.image)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


# ------------------------------------------------------------------------------------------------- compiling


def test_cache(tmp_path: Path) -> None:
    """The second run takes the first one's results; other inputs are other results."""
    folder, cache = write_model(tmp_path / "m", SMALL), tmp_path / "cache"
    stages: list[str] = []
    first = compile_model(folder, TINY, 4, lambda stage, *step: stages.append(stage), cache)
    assert not first.cached and any(s.startswith("calibrate") for s in stages)
    stages.clear()
    second = compile_model(folder, TINY, 4, lambda stage, *step: stages.append(stage), cache)
    assert second.cached and stages == ["read the checkpoint"]
    assert list(second.image.parts()) == list(first.image.parts())
    assert model_digest(second.qmodel) == model_digest(first.qmodel) == second.image.meta["qmodel"]
    assert second.report == first.report and second.needs == first.needs
    assert second.qmodel.tied == first.qmodel.tied
    stages.clear()
    assert not compile_model(folder, TINY, 8, lambda stage, *step: stages.append(stage), cache).cached
    assert not any(s.startswith("calibrate") for s in stages), "calibration depends on the model alone"
    edit_config(folder, rms_norm_eps=1e-3)
    assert not compile_model(folder, TINY, 4, cache=cache).cached


def test_damaged_cache(tmp_path: Path) -> None:
    """Whatever happens to the cache, the result is right."""
    folder, cache = write_model(tmp_path / "m", SMALL), tmp_path / "cache"
    first = compile_model(folder, TINY, 4, cache=cache)
    for file in sorted(cache.iterdir()):
        whole = file.read_bytes()
        for data in (whole[: len(whole) // 2], b"", bytes(len(whole))):
            file.write_bytes(data)
            again = compile_model(folder, TINY, 4, cache=cache)
            assert list(again.image.parts()) == list(first.image.parts())
    assert compile_model(folder, TINY, 4, cache=cache).cached
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert not compile_model(folder, TINY, 4, cache=blocked).cached


def test_an_image_and_its_model_belong_together(tmp_path: Path) -> None:
    """A quantised model of other integers is not taken for the image's."""
    folder, cache = write_model(tmp_path / "m", SMALL), tmp_path / "cache"
    compile_model(folder, TINY, 4, cache=cache)
    model_file = next(cache.glob("m-tiny-int4-*.npz"))
    quantised = load_quantised(model_file)
    other = dataclasses.replace(quantised.model, eps=quantised.model.eps + 1)
    compiler.save_quantised(model_file, dataclasses.replace(quantised, model=other))
    again = compile_model(folder, TINY, 4, cache=cache)
    assert not again.cached and again.qmodel.eps == quantised.model.eps


def test_cache_is_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest results go."""
    folder, cache = write_model(tmp_path / "m", SMALL), tmp_path / "cache"
    cache.mkdir()
    (cache / "old.npz").write_bytes(bytes(1000))
    monkeypatch.setattr(compiler, "CACHE_BYTES", 0)
    compile_model(folder, TINY, 4, cache=cache)
    assert sorted(f.suffix for f in cache.iterdir()) == [".lpu", ".npz"]


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"naming": "llama"}], ids=["moe", "tied", "dense"])
def test_quantised_models_on_disk(changes: dict, tmp_path: Path) -> None:
    """Every integer survives, and so do shared arrays."""
    result = compile_model(write_model(tmp_path / "m", SMALL, **changes), TINY, 8, cache=None)
    quantised = compiler.Quantised(result.qmodel, result.report)
    compiler.save_quantised(tmp_path / "q.npz", quantised)
    found = load_quantised(tmp_path / "q.npz")
    assert model_digest(found.model) == model_digest(result.qmodel)
    assert found.model.tied == result.qmodel.tied == changes.get("tied", False)
    assert found.report == result.report
    assert (found.model.layers[0].router is None) == (result.qmodel.layers[0].router is None)


def test_needs_are_known_before_quantising(compiled: Compilation) -> None:
    """The outline of a model has the layout of the model."""
    assert [n for n in compiled.needs if not n.memory.startswith("program")] == list(
        memory_needs(compiled.shape, TINY, 4)
    )


def test_too_large(tmp_path: Path) -> None:
    """A model that does not fit says so at once, with what is needed and what there is."""
    folder = write_model(tmp_path / "m", SPEC.with_(d=64, ffn=128, layers=3))
    stages: list[str] = []
    with pytest.raises(LpuError, match=r"does not fit config tiny:\n.*weight words .*needs +\d+ +has +2048"):
        compile_model(folder, TINY, 4, lambda stage, *step: stages.append(stage), cache=None)
    assert stages == ["read the checkpoint"]


def test_weights_width(tmp_path: Path) -> None:
    """4 or 8."""
    assert [compiler.parse_weights(w) for w in ("4", "8", "int4", "INT8")] == [4, 8, 4, 8]
    with pytest.raises(LpuError, match="weights 'int2': int4 or int8"):
        compiler.parse_weights("int2")
    with pytest.raises(LpuError, match="weights of 5 bits"):
        compile_model(write_model(tmp_path / "m", SMALL), TINY, 5, cache=None)
