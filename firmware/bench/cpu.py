"""Baseline: the plain C loop of ``cloop.cc`` (int8, AVX2), built and run for a checkpoint."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sim import tools

from ..checkpoint import Checkpoint
from ..errors import LpuError
from ..layout import ceil_div
from .baseline import Baseline

SOURCE = Path(__file__).with_name("cloop.cc")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-std=c++17")
_BLOCK, _ROWS = 32, 4
"""Columns and rows come in multiples of these, as ``cloop.cc`` reads them."""


def build(folder: Path) -> Path:
    """The program, compiled for this machine. Raises :class:`LpuError` where it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "cloop"
    compiler = tools.find_cxx()
    if compiler is None:
        raise LpuError("no C++ compiler for the C loop")
    done = subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(program)], capture_output=True, text=True)
    if done.returncode:
        raise LpuError(f"the C loop does not compile (it needs a processor with AVX2):\n{done.stderr[-2000:]}")
    return program


def write_model(ckpt: Checkpoint, path: Path) -> None:
    """The checkpoint as ``cloop.cc`` reads it: shape, float32 embedding, int8 matrices with gains folded in."""
    s = ckpt.shape
    sizes = (s.vocab, s.d, s.layers, s.heads, s.kv_heads, s.head_dim, s.experts, s.top_k, s.ffn, s.context)
    with path.open("wb") as file:
        file.write(np.array(sizes, "<i4").tobytes() + np.array([s.rope_theta, s.eps], "<f4").tobytes())
        file.write(np.asarray(ckpt.embed, "<f4").tobytes())
        for i in range(s.layers):
            layer = ckpt.layer(i)
            _matrix(file, np.concatenate([layer.q, layer.k, layer.v]) * layer.attn_norm)
            _matrix(file, layer.o)
            router = np.zeros((s.experts, s.d)) if layer.router is None else layer.router * layer.ffn_norm
            _matrix(file, router)
            for e in range(s.experts):
                gate, up, down = layer.expert(e)
                _matrix(file, np.concatenate([gate, up]) * layer.ffn_norm)
                _matrix(file, down)
        _matrix(file, ckpt.lm_head * ckpt.final_norm)


def _matrix(file: BinaryIO, weight: np.ndarray) -> None:
    rows, columns = weight.shape
    padded = np.zeros((ceil_div(rows, _ROWS) * _ROWS, ceil_div(columns, _BLOCK) * _BLOCK))
    padded[:rows, :columns] = weight
    scale = np.maximum(np.abs(padded).max(axis=1), 1e-30) / 127
    file.write(np.array(padded.shape, "<i4").tobytes())
    file.write(np.rint(padded / scale[:, None]).astype(np.int8).tobytes())
    file.write(scale.astype("<f4").tobytes())


def measure(
    program: Path, model: Path, macs: int, text: Sequence[int], expected: Sequence[int], threads: int, runs: int,
    position: int,
) -> Baseline:  # fmt: skip
    """Runs it on ``text``; ``expected``: what the integer model finds likeliest behind each token."""
    command = [str(program), str(model), str(threads), str(runs), *map(str, text)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LpuError(f"the C loop failed: {done.stderr.strip()}")
    lines = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    seconds = np.array(lines[1::2]) * 1e-9
    same = float(np.mean(np.array(lines[0]) == np.array(expected)))
    return Baseline("C loop, AVX2", "int8 weights and activations", threads, seconds, same, macs, position, 8, 256)
