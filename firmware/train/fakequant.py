"""Fake quantisation: the chip's number grids, differentiable by the straight-through estimator.

Every function takes and returns float tensors; "fake" means that the values lie on the integer grid
but are still floats. Gradients pass `round` unchanged (STE) and `clamp` only inside its range.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCALE_BITS = 12
"""Significant bits of an exported row scale: q * s is then exact in float32, so s can be read back."""


def round_ste(x: Tensor) -> Tensor:
    """Round to nearest even; the gradient is that of the identity. Any shape."""
    return x + (x.round() - x).detach()


def int_limit(bits: int) -> int:
    """Largest magnitude of the symmetric grid: 7 for 4 bits, 127 for 8 bits."""
    return 2 ** (bits - 1) - 1


def search_row_scale(weight: Tensor, bits: int, candidates: int = 97) -> Tensor:
    """Scale of least squared error for each row.

    weight [..., out, in] -> scale [..., out]; tries `candidates` fractions of the abs-max scale, and for few
    bits also every scale that puts the row's largest value on the grid, so that a row which is on a grid
    already is found to be so, with no error.
    """
    limit = int_limit(bits)
    absmax = weight.abs().amax(-1).clamp_min(1e-8)
    best_scale = absmax / limit
    best_error = torch.full_like(absmax, float("inf"))
    on_grid = [limit / k for k in range(1, limit + 1)] if bits <= 4 else []
    for fraction in [*torch.linspace(0.25, 1.0, candidates).tolist(), *on_grid]:
        scale = absmax * fraction / limit
        rounded = (weight / scale[..., None]).round().clamp(-limit, limit) * scale[..., None]
        error = (rounded - weight).square().sum(-1)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return best_scale


class GridWeight(nn.Module):
    """A weight matrix (or a stack of them) that can be trained on an integer grid with one scale per row.

    weight: [..., out, in]; log_scale: [..., out], learned (LSQ: the scale's gradient is q - w/s inside the
    grid and +-limit outside, which plain autograd of the expression in `forward` gives).
    """

    def __init__(self, *shape: int, bits: int, std: float) -> None:
        super().__init__()
        self.bits = bits
        self.weight = nn.Parameter(torch.randn(*shape) * std)
        self.log_scale = nn.Parameter(torch.zeros(*shape[:-1]), requires_grad=False)
        self.on_grid = False

    def start_quantising(self) -> None:
        """Put the weight on its grid from now on; scales start at the least squared error."""
        with torch.no_grad():
            self.log_scale.copy_(search_row_scale(self.weight, self.bits).log())
        self.log_scale.requires_grad_(True)
        self.on_grid = True

    def forward(self) -> Tensor:
        """The weight to compute with, [..., out, in]: on the grid when quantising, else as it is."""
        if not self.on_grid:
            return self.weight
        limit = int_limit(self.bits)
        scale = self.log_scale.exp()[..., None]
        return round_ste((self.weight / scale).clamp(-limit, limit)) * scale

    @torch.no_grad()
    def exported(self) -> Tensor:
        """float32 weight for the checkpoint, [..., out, in]; each value exactly q * s when quantising."""
        if not self.on_grid:
            return self.weight.float().clone()
        limit = int_limit(self.bits)
        exact_scale = self.log_scale.exp()
        mantissa, exponent = torch.frexp(exact_scale)
        scale = torch.ldexp((mantissa * 2**SCALE_BITS).round() / 2**SCALE_BITS, exponent)
        q = (self.weight / exact_scale[..., None]).round().clamp(-limit, limit)
        return (q * scale[..., None]).float()


def kv_int8(x: Tensor) -> Tensor:
    """int8 with a power-of-two scale per (token, head), as the chip's KV cache. x [..., head_dim]."""
    absmax = x.detach().abs().amax(-1, keepdim=True).clamp_min(2.0**-20)
    scale = torch.exp2(torch.ceil(torch.log2(absmax / 127.0)))
    return round_ste((x / scale).clamp(-127, 127)) * scale


def block_mantissa(x: Tensor, bits: int = 10, block: int = 8) -> Tensor:
    """Signed `bits`-bit mantissas with a shared power-of-two exponent per `block` elements of the last axis.

    The chip rounds the input of every matrix product so; used when evaluating only. x [..., n], any n.
    """
    n = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -n % block))
    blocks = padded.reshape(*padded.shape[:-1], -1, block)
    limit = int_limit(bits)
    absmax = blocks.abs().amax(-1, keepdim=True).clamp_min(2.0**-30)
    scale = torch.exp2(torch.ceil(torch.log2(absmax / limit)))
    rounded = (blocks / scale).round().clamp(-limit, limit) * scale
    return rounded.reshape(padded.shape)[..., :n]
