"""Random Mixtral checkpoints with the statistics of trained ones, for measuring how well the integer model follows.

Plain Gaussian weights flatter a quantiser. Trained ones have heavier tails, rows of unequal size, norm gains that
differ by lane, a few lanes of the residual stream many times larger than the others (Dettmers et al. 2022,
"LLM.int8()", section 4), and logits far from uniform. All of that is drawn here, from a seed.
"""

from __future__ import annotations

import math

import numpy as np

from .checkpoint import F32, ArrayCheckpoint, ArrayLayer, ModelShape

TAIL = 5
"""Degrees of freedom of Student's t: the tails of the weights."""
ROW_SPREAD = 0.3
"""Standard deviation of the logarithm of a row's size; of a norm's gains, too."""
OUTLIER_LANES, OUTLIER = 3, 12.0
"""Lanes of the residual stream that are larger than the others, and how much."""
EMBED_STD = 1.0
"""Size of the embedding beside what all layers add to it, 1. A smaller one makes a random network chaotic, as no
trained one is: at 0.25 a relative error of 0.001 in the embedding changes 1 % of the likeliest tokens by itself."""
LOGIT_STD, ROUTER_STD = 3.5, 1.5
"""Standard deviations of the logits: the perplexity of V ids is about V exp(-LOGIT_STD^2 / 2)."""


def _shape(**sizes: int | bool | None) -> ModelShape:
    usual = dict(window=None, rope_theta=1e6, eps=1e-5, tied=False, bos=None, eos=(), context=256)
    return ModelShape(**{**usual, **sizes})  # type: ignore[arg-type]


SHAPES = {
    "random 8 experts, top 2": _shape(
        vocab=2048, d=256, layers=4, heads=8, kv_heads=2, head_dim=32, experts=8, top_k=2, ffn=512
    ),
    "random 16 experts, top 2, window 64": _shape(
        vocab=1024, d=128, layers=6, heads=4, kv_heads=1, head_dim=32, experts=16, top_k=2, ffn=192, window=64
    ),
    "random 6 experts, top 3, no shared heads": _shape(
        vocab=4096, d=192, layers=3, heads=6, kv_heads=6, head_dim=32, experts=6, top_k=3, ffn=320
    ),
}
"""Mixtral's proportions in small, and two that differ from it where the format allows it."""


def random_checkpoint(shape: ModelShape, seed: int) -> ArrayCheckpoint:
    """A checkpoint of a shape, not tied, the same for the same seed."""
    s, rng = shape, np.random.default_rng(seed)

    def spread(n: int) -> F32:
        """[n] positive factors, mean square 1."""
        made: F32 = rng.lognormal(-(ROW_SPREAD**2), ROW_SPREAD, n).astype(np.float32)
        return made

    def matrix(outputs: int, inputs: int, std: float = 1.0) -> F32:
        """[outputs, inputs]: inputs of mean square 1 give outputs of standard deviation ``std``."""
        values = rng.standard_t(TAIL, (outputs, inputs)).astype(np.float32)
        size = std / math.sqrt(inputs * TAIL / (TAIL - 2))
        made: F32 = values * (spread(outputs) * np.float32(size))[:, None]
        return made

    loud = rng.choice(s.d, OUTLIER_LANES, replace=False)

    def into_residual(inputs: int, std: float) -> F32:
        made = matrix(s.d, inputs, std)
        made[loud] *= OUTLIER
        return made

    def gains() -> F32:
        """[d] of a norm in front of a layer: a trained model makes up for the loud lanes."""
        made = spread(s.d)
        made[loud] /= OUTLIER
        return made

    step = 1 / math.sqrt(2 * s.layers)
    layers = []
    for _ in range(s.layers):
        experts = range(s.experts)
        layers.append(ArrayLayer(
            attn_norm=gains(), q=matrix(s.q_dim, s.d, 1.5), k=matrix(s.kv_dim, s.d, 1.5), v=matrix(s.kv_dim, s.d),
            o=into_residual(s.q_dim, 2 * step), ffn_norm=gains(),
            router=matrix(s.experts, s.d, ROUTER_STD) if s.has_router else None,
            w_gate=np.stack([matrix(s.ffn, s.d, 1.5) for _ in experts]),
            w_up=np.stack([matrix(s.ffn, s.d) for _ in experts]),
            w_down=np.stack([into_residual(s.ffn, step) for _ in experts]),
        ))  # fmt: skip
    embed = matrix(s.vocab, s.d, math.sqrt(s.d) * EMBED_STD)
    return ArrayCheckpoint(s, embed, gains(), matrix(s.vocab, s.d, LOGIT_STD), layers)
