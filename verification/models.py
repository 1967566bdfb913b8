"""Small random Mixtral models for benches: a few hundred cycles a token, every step of the program in use."""

from __future__ import annotations

import dataclasses

import numpy as np

from firmware.calibrate import calibrate
from firmware.checkpoint import ArrayCheckpoint, ArrayLayer, ModelShape
from firmware.lower import Compiled, lower
from firmware.quantise import quantise
from firmware.scalar import scalar
from firmware.schedule import token_cycles
from hdl.config import Config
from sim.qmodel import QModel
from sim.reference import Reference, Sampling

SHAPE = ModelShape(
    vocab=64, d=16, layers=2, heads=4, kv_heads=2, head_dim=4, experts=4, top_k=2, ffn=16, context=32,
    window=None, rope_theta=1e4, eps=1e-5, tied=True, bos=None, eos=(),
)  # fmt: skip
"""Default shape; ``random_model`` changes fields of it."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A quantised model with its program for one configuration."""

    model: QModel
    compiled: Compiled

    def cycles(self, position: int, sampled: bool) -> int:
        """Cycles the scheduler promises for the token at a position."""
        s, c = self.model.shape, self.compiled
        return token_cycles(c.cfg, c.program.phases, s.layers, s.window, c.floor, position, sampled)

    def generate(
        self, prompt: list[int], limit: int, sampling: Sampling, stop_ids: tuple[int, ...] = ()
    ) -> list[int]:
        """What the integer reference writes after ``prompt``."""
        return Reference(self.model).generate(prompt, limit, sampling, stop_ids)


def random_checkpoint(rng: np.random.Generator, shape: ModelShape) -> ArrayCheckpoint:
    """Random float weights: logits vary by several units and routing is not a coin toss."""
    s = shape

    def matrix(*size: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(size) * 1.5 * gain / np.sqrt(size[-1])).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.2 * rng.standard_normal(s.d)).astype(np.float32)

    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    layers = [
        ArrayLayer(
            attn_norm=norm(), q=matrix(q, s.d), k=matrix(kv, s.d), v=matrix(kv, s.d), o=matrix(s.d, q),
            ffn_norm=norm(), router=matrix(s.experts, s.d, gain=2.0) if s.experts > 1 else None,
            w_gate=matrix(s.experts, s.ffn, s.d), w_up=matrix(s.experts, s.ffn, s.d),
            w_down=matrix(s.experts, s.d, s.ffn),
        )
        for _ in range(s.layers)
    ]  # fmt: skip
    # Tied rows are small, or each token would be followed by itself.
    embed = matrix(s.vocab, s.d, gain=0.3 if s.tied else 2.0)
    lm_head = embed if s.tied else matrix(s.vocab, s.d, gain=2.0)
    return ArrayCheckpoint(s, embed, norm(), lm_head, layers)


def random_model(
    cfg: Config, rng: np.random.Generator, *, width: int = 4, sequences: int = 1, **changes: object
) -> Subject:
    """A random model with ``width``-bit weights, or wider ones where the configuration takes no such; ``changes`` are
    fields of :data:`SHAPE`."""
    width = max(width, cfg.narrowest)
    checkpoint = random_checkpoint(rng, dataclasses.replace(SHAPE, **changes))  # type: ignore[arg-type]
    model, _ = quantise(checkpoint, cfg, width, calibrate(checkpoint, n_seqs=4, length=16))
    return Subject(model, lower(model, cfg, sequences))


GREEDY = Sampling()


def sampling_of(temperature: float, topk: int, seed: int) -> Sampling:
    """The reference's terms for the driver's arguments."""
    if temperature == 0 or topk == 1:
        return GREEDY
    return Sampling(scalar(1 / temperature), 1 if topk else 2, max(topk, 1), seed)
