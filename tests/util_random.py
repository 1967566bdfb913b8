"""Models on the instruction-level machine, each token against the reference."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np

from firmware.lower import Compiled
from firmware.schedule import token_cycles
from hdl.config import Config
from hdl.image import Param
from hdl.isa import Queue
from hdl.timing import get_timing
from sim import numerics as nx
from sim.machine import Machine, Retired
from sim.reference import Reference, Sampling, choose


def roomy(cfg: Config) -> Config:
    """With memories for any shape of the tests: the schedule follows the other sizes."""
    return dataclasses.replace(
        cfg, weight_depth=1 << 15, act_depth=1 << 10, scale_depth=1 << 13, coef_depth=1 << 12,
        vector_depth=1 << 10, queue_depth=2048, phase_depth=128, context_max=max(cfg.context_max, 128),
        vocab_max=max(cfg.vocab_max, 512), experts_max=max(cfg.experts_max, 8), time_bits=max(cfg.time_bits, 12),
    )  # fmt: skip


class Runner:
    """A compiled model on an instruction-level machine, each token's logits and cycles checked as it goes, and that its
    last weights are read while an error can still end it."""

    def __init__(self, compiled: Compiled):
        self.compiled = compiled
        self.model = compiled.layout.model
        self._rows: list[list[int]] = []
        self._last_read = 0
        self.machine = Machine(compiled.cfg, self._watch)
        for s in compiled.sections:
            self.machine.load(s.space, s.sub, s.address, s.data)
        self.reference = Reference(self.model)

    def _watch(self, retired: Retired) -> None:
        if retired.queue is Queue.TOP and retired.text.startswith("insert"):
            self._rows.append([int(n) for n in re.findall(r"-?\d+", retired.text)])
        if retired.queue is Queue.ABC:
            self._last_read = max(self._last_read, retired.cycle)

    def run(
        self,
        prompt: list[int],
        limit: int,
        sampling: Sampling | None = None,
        stop: tuple[int, ...] = (),
        clear: bool = True,
    ) -> list[int]:
        """Tokens of the machine. Raises AssertionError where a logit, a token or a cycle count is not as computed."""
        sampling = sampling or Sampling()
        m, s = self.machine, self.model.shape
        stops = (*stop, 1 << 31, 1 << 31)
        values = {
            Param.PROMPT_LEN: len(prompt), Param.LIMIT: limit, Param.CLEAR: int(clear), Param.STOP0: stops[0],
            Param.STOP1: stops[1], Param.TOPK: sampling.topk, Param.NOISE: sampling.noise, Param.SEED: sampling.seed,
        }  # fmt: skip
        m.param.update(values)
        m.constants[1] = nx.Scalar(*sampling.inverse)
        m.prompt = {i: (token, 0) for i, token in enumerate(prompt)}
        if clear:
            self.reference.reset()
        todo, made = list(prompt), list[int]()
        for record in m.run():
            position = self.reference.position
            logits = self.reference.forward([todo.pop(0)], sampling.inverse)[0]
            predicted = token_cycles(
                self.compiled.cfg, self.compiled.program.phases, s.layers, s.window, self.compiled.floor, position,
                record.sampled,
            )  # fmt: skip
            assert record.cycles == predicted, f"position {position}: cycles"
            behind, self._last_read = record.cycles - 1 - self._last_read, 0
            early = behind - get_timing(self.compiled.cfg).memory_error
            assert early >= 0, f"position {position}: weights read {-early} cycles too late for an error"
            if not record.sampled:
                continue
            rows = -(-s.vocab // self.compiled.cfg.vlanes)
            seen = np.array(self._rows[-rows:]).reshape(-1)[: s.vocab]
            different = np.flatnonzero(seen != logits)
            assert not len(different), f"position {position}: logits {different[:8]} of {s.vocab} differ"
            assert record.token == choose(logits, position, sampling), f"position {position}: token"
            made.append(record.token)
            todo.append(record.token)
        return made


def run_two(
    compiled: Compiled, prompts: list[list[int]], limit: int, samplings: list[Sampling], stop: tuple[int, ...] = ()
) -> list[list[int]]:
    """Two sequences on a machine: the tokens of each, compared with the reference's, which knows one at a time.

    The samplings differ in their seeds alone. Raises AssertionError where a token or a cycle count is not as computed.
    """
    m, s = Machine(compiled.cfg), compiled.layout.model.shape
    for part in compiled.sections:
        m.load(part.space, part.sub, part.address, part.data)
    stops, sampling = (*stop, 1 << 31, 1 << 31), samplings[0]
    m.param.update({
        Param.PROMPT_LEN: len(prompts[0]), Param.PROMPT_LEN1: len(prompts[1]), Param.LIMIT: limit, Param.CLEAR: 1,
        Param.STOP0: stops[0], Param.STOP1: stops[1], Param.TOPK: sampling.topk, Param.NOISE: sampling.noise,
        Param.SEED: sampling.seed, Param.SEED1: samplings[1].seed,
    })  # fmt: skip
    m.constants[1] = nx.Scalar(*sampling.inverse)
    m.prompt = {i: (a, b) for i, (a, b) in enumerate(itertools.zip_longest(prompts[0], prompts[1], fillvalue=0))}
    made: list[list[int]] = [[], []]
    first = min(map(len, prompts)) - 1
    for i, record in enumerate(m.run()):
        position, sequence = divmod(i, 2)
        program = compiled.program.phases
        sampled = position >= first
        assert record.cycles == token_cycles(
            compiled.cfg, program, s.layers, s.window, compiled.floor, position, sampled
        ), f"position {position}: cycles"
        if record.sampled:
            made[sequence].append(record.token)
    for sequence, prompt in enumerate(prompts):
        alone = Reference(compiled.layout.model).generate(prompt, limit, samplings[sequence], stop)
        # The run ends with the one that ends last, or with the context.
        assert made[sequence] == alone, f"sequence {sequence}"
    return made
