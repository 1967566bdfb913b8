"""The image file: all that is loaded into an LPU for one model, in one checked binary file.

Layout, little endian::

    offset  bytes
    0       8      magic 89 4C 50 55 0D 0A 1A 0A ("LPU" in PNG's armour against text-mode copies)
    8       4      format version
    12      8      offset of the directory
    20      8      length of the directory
    28      4      CRC-32 of the directory
    32      4      CRC-32 of the 32 bytes before
    36      ...    sections, each from a multiple of 64 bytes on
    ...     ...    directory, JSON, up to the end of the file: configuration, meta, and of each section its
                   name, memory (space, sub, address: hdl/image.py), offset, length and CRC-32

The directory comes last so that a writer can stream sections without knowing their sizes; the header is
filled in when all is written. A reader maps the file: rows are read from disk when they are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdl.config import CONFIGS, Config
from hdl.contract import contract_hash
from hdl.image import Param, Space, row_bytes
from hdl.isa import (
    FETCH_BITS,
    PHASE_BITS,
    Instr,
    Isa,
    IsaError,
    Phase,
    Program,
    Queue,
    decode_phase,
    get_isa,
    tail_address,
)
from hdl.link import space_shape

from .checkpoint import ModelShape
from .errors import LpuError
from .lower import pack_program
from .schedule import token_cycles

MAGIC = b"\x89LPU\r\n\x1a\n"
VERSION = 1
"""Format version. Counts up with every change that an older reader would misunderstand."""
TOKENIZER = "TOKENIZER"
"""Name of the section that is not loaded: the bytes of the model's ``tokenizer.json``."""
_HEADER = struct.Struct("<8sIQQI")
_CRC = struct.Struct("<I")
_ALIGN = 64
_CHUNK = 1 << 22


class ImageError(LpuError):
    """An image file that cannot be used; the message names the file and the section."""


Rows = NDArray[np.uint8]


class Part(NamedTuple):
    """Rows to load, as :meth:`firmware.driver.Driver.load` takes them."""

    space: int
    sub: int
    address: int
    rows: bytes


@dataclasses.dataclass(frozen=True)
class ImageSection:
    """Rows for one bank of one memory: consecutive rows from ``address`` on."""

    space: Space
    sub: int
    address: int
    data: Rows
    """uint8 [bytes]; of an image that was read, a view of the file."""

    @property
    def name(self) -> str:
        """The memory, and its bank where there are several: ``WEIGHT 3``, ``PROGRAM VX``; ``PROGRAM VX tail``."""
        if self.space is Space.PROGRAM:
            return f"{self.space.name} {Queue(self.sub).name}{' tail' if self.address else ''}"
        return f"{self.space.name} {self.sub}" if self.space is Space.WEIGHT else self.space.name

    @property
    def part(self) -> Part:
        """The section with its rows in memory."""
        return Part(int(self.space), self.sub, self.address, self.data.tobytes())


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image file holds. ``meta`` describes the model (``firmware/compiler.py`` writes it)."""

    cfg: Config
    meta: Mapping[str, Any]
    sections: tuple[ImageSection, ...]
    tokenizer: bytes | None = None
    path: Path | None = None
    """Where it was read from."""

    def parts(self, placed: Callable[[ImageSection], bool] = lambda section: False) -> Iterator[Part]:
        """All that is loaded, in the form that ``Driver.load`` takes, one section at a time in memory; without the
        sections that ``placed`` says it has put where they belong.

        The last row is the image's identity, so that half of an image is never taken for the whole.
        """
        for section in self.sections:
            if not placed(section):
                yield section.part
        size = row_bytes(self.cfg, Space.PARAM)
        yield Part(Space.PARAM, 0, Param.IMAGE, self.identity.to_bytes(size, "little"))

    @cached_property
    def identity(self) -> int:
        """64 bits that tell this image from every other one, never 0; computed from what is loaded."""
        digest = hashlib.sha256()
        for s in self.sections:
            digest.update(struct.pack("<BBIQ", s.space, s.sub, s.address, len(s.data)))
            digest.update(s.data.data)
        return int.from_bytes(digest.digest()[:8], "little") or 1

    @property
    def label(self) -> str:
        """How messages name this image."""
        return "image" if self.path is None else str(self.path)

    @cached_property
    def params(self) -> dict[Param, int]:
        """The parameters that the image sets; empty for a program without a model."""
        size = row_bytes(self.cfg, Space.PARAM)
        found = {}
        for section in self.sections:
            if section.space is Space.PARAM:
                for i, row in enumerate(section.data.reshape(-1, size), section.address):
                    if i in set(Param):
                        found[Param(i)] = int.from_bytes(row.tobytes(), "little")
        return found

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The sequencer's table, with notes where the image has them."""
        notes = self._notes("phases")
        try:
            (words,) = self._words(Space.PHASE, 0, 0)
            phases = [decode_phase(w & (1 << PHASE_BITS) - 1) for w in words]
        except IsaError as error:
            raise ImageError(f"{self.label}: section PHASE: {error}") from None
        if len(notes) == len(phases):
            phases = [dataclasses.replace(p, note=n) for p, n in zip(phases, notes, strict=True)]
        return tuple(phases)

    def program(self) -> Program:
        """The token's program, decoded from the words. Raises ImageError for words without a meaning."""
        isa = get_isa(self.cfg)
        code: dict[Queue, tuple[Instr, ...]] = {}
        starts = [0, tail_address(self.cfg)] if any(p.tail for p in self.phases) else [0]
        for q in Queue:
            parts = self._words(Space.PROGRAM, int(q), *starts)
            instrs = [i for words in parts for i in self._instructions(isa, q, words)]
            notes = self._notes(q.name)
            if len(notes) == len(instrs):
                instrs = [dataclasses.replace(i, note=t) for i, t in zip(instrs, notes, strict=True)]
            code[q] = tuple(instrs)
        return Program(self.phases, code)

    def _instructions(self, isa: Isa, q: Queue, words: list[int]) -> Iterator[Instr]:
        """Of a queue's words."""
        n = isa.formats[q].words
        if len(words) % n:
            raise ImageError(f"{self.label}: section PROGRAM {q.name}: {len(words)} words, not a multiple of {n}")
        for i in range(0, len(words), n):
            word = sum(w << FETCH_BITS * k for k, w in enumerate(words[i : i + n]))
            try:
                yield isa.decode(q, word)
            except IsaError as error:
                raise ImageError(f"{self.label}: section PROGRAM {q.name}: instruction {i // n}: {error}") from None

    def _notes(self, what: str) -> list[str]:
        """People's notes of the phases or of a queue's instructions."""
        notes = self.meta.get("notes", {})
        return list(notes.get(what, [])) if isinstance(notes, dict) else []

    def _words(self, space: Space, sub: int, *starts: int) -> list[list[int]]:
        """All rows: those from each of ``starts`` on, without a gap."""
        size = row_bytes(self.cfg, space)
        words: dict[int, int] = {}
        for section in self.sections:
            if section.space is space and section.sub == sub:
                for i, row in enumerate(section.data.reshape(-1, size), section.address):
                    words[i] = int.from_bytes(row.tobytes(), "little")
        runs = []
        for start in starts:
            rows = itertools.takewhile(words.__contains__, itertools.count(start))
            runs.append([words.pop(row) for row in rows])
        if words:
            raise ImageError(f"{self.label}: section {space.name} {sub}: rows are missing")
        return runs

    def _need(self, param: Param) -> int:
        if param not in self.params:
            raise ImageError(f"{self.label}: a program without a model: parameter {param.name} is not set")
        return self.params[param]

    @property
    def context(self) -> int:
        """Positions the program may reach."""
        return self._need(Param.CONTEXT)

    @property
    def sequences(self) -> int:
        """Sequences that the program works on in turn."""
        return 2 if self.params.get(Param.SEQUENCES) == 2 else 1

    @property
    def vocab(self) -> int:
        """Number of token ids."""
        return self._need(Param.VOCAB)

    def cycles(self, position: int, sampled: bool = True) -> int:
        """Exact cycles of the token at ``position`` (0-based): from its first cycle to the next token's. With several
        sequences, of the tokens that they all have there.

        ``sampled``: whether a token is sampled after it (all but the prompt's tokens before the last).
        Computed from the phase table and the parameters alone. Raises ImageError without a model, ValueError
        for a position outside the context.
        """
        if not 0 <= position < self.context:
            raise ValueError(f"position {position} is outside the context of {self.context}")
        layers, window = self._need(Param.LAYERS), self._need(Param.WINDOW)
        return token_cycles(self.cfg, self.phases, layers, window, self._need(Param.FLOOR), position, sampled)

    @property
    def shape(self) -> ModelShape:
        """The model's shape. Raises ImageError for a program without a model."""
        try:
            fields = dict(self.meta["shape"])
            return ModelShape(**(fields | {"eos": tuple(fields["eos"])}))
        except (KeyError, TypeError):
            raise ImageError(f"{self.label}: does not say of which model it is") from None

    @property
    def weights(self) -> int:
        """Bits of the model's weights, 4 or 8."""
        return int(self.meta.get("weights", 0))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a text."""
        return tuple(self.meta.get("stop_ids", ()))


def section(space: Space, sub: int, address: int, data: bytes | Rows) -> ImageSection:
    """A section of an image in memory; its bytes are not copied."""
    return ImageSection(space, sub, address, np.frombuffer(data, np.uint8))


def program_sections(cfg: Config, program: Program) -> list[ImageSection]:
    """Sections of a program: the words of each queue that has any, and the phase table.

    Raises :class:`hdl.isa.IsaError` for a field out of range.
    """
    return [section(s.space, s.sub, s.address, s.rows) for s in pack_program(cfg, program)]


def program_notes(program: Program) -> dict[str, list[str]]:
    """People's notes of a program, for ``meta["notes"]``."""
    notes = {"phases": [p.note for p in program.phases]}
    return notes | {q.name: [i.note for i in program.code.get(q, ())] for q in Queue}


# --------------------------------------------------------------------------------------------------- writing


def make_parent(path: Path) -> None:
    """Make the folder that a file goes into, before what takes long. Raises LpuError where no file can be put."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise LpuError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block ends well, and leaves nothing otherwise.

    Raises LpuError when the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        stream = temporary.open("wb")
    except OSError as error:
        raise LpuError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with stream:
            yield stream
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LpuError(f"{path}: cannot be written: {error.strerror}") from None
    except BaseException:  # Ctrl-C, too
        temporary.unlink(missing_ok=True)
        raise


def write_image(path: str | Path, image: Image) -> None:
    """Write an image file, whole or not at all. Raises LpuError when it cannot be written."""
    path = Path(path)
    entries: list[dict[str, Any]] = []
    with atomic_file(path) as out:
        out.write(bytes(_HEADER.size + _CRC.size))
        for s in image.sections:
            place = {"space": s.space.name, "sub": s.sub, "address": s.address}
            entries.append({"name": s.name, **place, **_write_data(out, s.data)})
        if image.tokenizer is not None:
            data = np.frombuffer(image.tokenizer, np.uint8)
            entries.append({"name": TOKENIZER, **_write_data(out, data)})
        directory = {
            "config": image.cfg.name,
            "config_hash": image.cfg.hash(),
            "contract": contract_hash(image.cfg),
            "meta": dict(image.meta),
            "sections": entries,
        }
        text = json.dumps(directory, allow_nan=False, separators=(",", ":")).encode()
        offset = out.tell()
        out.write(text)
        header = _HEADER.pack(MAGIC, VERSION, offset, len(text), zlib.crc32(text))
        out.seek(0)
        out.write(header + _CRC.pack(zlib.crc32(header)))


def _write_data(out: IO[bytes], data: Rows) -> dict[str, int]:
    """Append a section in chunks; returns where it is."""
    out.write(bytes(-out.tell() % _ALIGN))
    offset, crc = out.tell(), 0
    for at in range(0, len(data), _CHUNK):
        chunk = data[at : at + _CHUNK].data
        crc = zlib.crc32(chunk, crc)
        out.write(chunk)
    return {"offset": offset, "length": len(data), "crc32": crc}


# --------------------------------------------------------------------------------------------------- reading


def read_image(path: str | Path, cfg: Config | None = None) -> Image:
    """Read an image file and check all of it.

    cfg: the hardware it is meant for; None: the configuration the image names. Raises ImageError naming the
    file and what is wrong with it: not an image, a newer version, truncated, a damaged section, made for
    another configuration or instruction set.
    """
    path = Path(path)
    data = _map(path)
    directory = _directory(path, data)
    try:
        cfg = _config(path, directory, cfg)
        sections, tokenizer = [], None
        for entry in directory["sections"]:
            view = _checked(path, data, entry)
            if entry["name"] == TOKENIZER:
                tokenizer = view.tobytes()
            else:
                sections.append(_section(path, cfg, entry, view))
        return Image(cfg, directory["meta"], tuple(sections), tokenizer, path)
    except (KeyError, TypeError, ValueError) as error:
        # Its checksum is right, so whoever wrote it did not keep to the format.
        raise ImageError(f"{path}: the directory is malformed: {type(error).__name__} {error}") from None


def _map(path: Path) -> Rows:
    try:
        if not path.stat().st_size:
            raise ImageError(f"{path}: is empty, not an LPU image")
        return np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; `lpu compile MODEL -o {path}` makes an image") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from None


def _directory(path: Path, data: Rows) -> dict[str, Any]:
    """The checked directory."""
    head = data[: _HEADER.size + _CRC.size].tobytes()
    if head[: len(MAGIC)] != MAGIC:
        raise ImageError(f"{path}: is not an LPU image (or was damaged at its very beginning)")
    if len(head) < _HEADER.size + _CRC.size:
        raise ImageError(f"{path}: truncated: ends after {len(data)} bytes, within the header")
    _, version, offset, length, crc = _HEADER.unpack_from(head)
    if zlib.crc32(head[: _HEADER.size]) != _CRC.unpack_from(head, _HEADER.size)[0]:
        # A later format may well have another header: say so where it looks like one.
        if VERSION < version < VERSION + 100:
            raise _newer(path, version)
        raise ImageError(f"{path}: the header is damaged (checksum); copy or compile the image again")
    if version > VERSION:
        raise _newer(path, version)
    if offset + length > len(data):
        raise ImageError(
            f"{path}: truncated: {len(data)} of {offset + length} bytes are there; copy or compile it again"
        )
    if offset + length < len(data):
        raise ImageError(f"{path}: {len(data) - offset - length} bytes too many at the end; copy it again")
    text = data[offset : offset + length].tobytes()
    if zlib.crc32(text) != crc:
        raise ImageError(f"{path}: the directory is damaged (checksum); copy or compile the image again")
    directory: dict[str, Any] = json.loads(text)
    return directory


def _newer(path: Path, version: int) -> ImageError:
    return ImageError(f"{path}: has format version {version}, this program reads up to {VERSION}: update it")


def _config(path: Path, directory: dict[str, Any], cfg: Config | None) -> Config:
    """The configuration of the image, which must be ``cfg`` where that is given."""
    name, digest = directory["config"], directory["config_hash"]
    if cfg is not None and cfg.hash() != digest:
        raise ImageError(
            f"{path}: was made for config {name!r} (hash {digest}), "
            f"not for config {cfg.name!r} (hash {cfg.hash()})"
        )
    if cfg is None:
        known = [c for c in CONFIGS.values() if c.hash() == digest]
        if not known:
            known_here = ", ".join(f"{c.name} ({c.hash()})" for c in CONFIGS.values())
            raise ImageError(
                f"{path}: was made for config {name!r} (hash {digest}); this program knows {known_here}"
            )
        cfg = next((c for c in known if c.name == name), known[0])
    if directory["contract"] != contract_hash(cfg):
        raise ImageError(f"{path}: was made with another version of the instruction set; compile it again")
    return cfg


def _checked(path: Path, data: Rows, entry: dict[str, Any]) -> Rows:
    """A section's bytes, after their checksum."""
    offset, length = int(entry["offset"]), int(entry["length"])
    if offset < 0 or length < 0 or offset + length > len(data):
        raise ImageError(f"{path}: section {entry['name']}: lies outside the file")
    view = data[offset : offset + length]
    crc = 0
    for at in range(0, length, _CHUNK):
        crc = zlib.crc32(view[at : at + _CHUNK].data, crc)
    if crc != entry["crc32"]:
        raise ImageError(
            f"{path}: section {entry['name']} is damaged (checksum); copy or compile the image again"
        )
    return view


def _section(path: Path, cfg: Config, entry: dict[str, Any], view: Rows) -> ImageSection:
    """A section that fits its memory."""
    space, sub, address = Space[entry["space"]], int(entry["sub"]), int(entry["address"])
    banks, depth = space_shape(cfg, space)
    rows, rest = divmod(len(view), row_bytes(cfg, space))
    if rest or not 0 <= sub < banks or address < 0 or address + rows > depth:
        raise ImageError(
            f"{path}: section {entry['name']}: {len(view)} bytes from row {address} of bank {sub} on do not "
            f"fit {banks} banks of {depth} rows of {row_bytes(cfg, space)} bytes (config {cfg.name})"
        )
    return ImageSection(space, sub, address, view)


def describe_sections(sections: Sequence[ImageSection], cfg: Config) -> list[tuple[str, int, int, int]]:
    """(memory, banks, rows, bytes) of each memory that the sections load, for tables."""
    out: dict[Space, tuple[int, int, int]] = {}
    for s in sections:
        banks, rows, size = out.get(s.space, (0, 0, 0))
        out[s.space] = (banks + 1, rows + len(s.data) // row_bytes(cfg, s.space), size + len(s.data))
    return [(space.name, *v) for space, v in out.items()]
