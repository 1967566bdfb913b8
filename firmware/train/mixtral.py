"""The Mixtral architecture in plain torch, equal to `transformers.MixtralForCausalLM`.

Letters in shapes: B sequences, T positions, d model width, H query heads, G KV heads, D head width,
E experts, f expert width, V vocabulary.

The experts are computed densely (all E for each token, then weighted by the router with zeros for those
not chosen): at these sizes three large products on a CPU are faster than gathering tokens by expert, and
the result is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firmware.train.fakequant import GridWeight, kv_int8


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one model; the field names of `config.json` are in `export.py`."""

    vocab: int
    d: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    f: int
    context: int
    tied: bool
    top_k: int = 2
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    def _parameters(self, experts: int) -> int:
        attention = 2 * self.d * self.head_dim * (self.heads + self.kv_heads)
        moe = self.experts * self.d + experts * 3 * self.d * self.f
        tables = (1 if self.tied else 2) * self.vocab * self.d
        return self.layers * (attention + moe + 2 * self.d) + tables + self.d

    @property
    def parameters_total(self) -> int:
        """All parameters, norm gains included; a tied embedding counts once."""
        return self._parameters(self.experts)

    @property
    def parameters_active(self) -> int:
        """Parameters that one token uses: as the total, with top-k experts instead of all."""
        return self._parameters(self.top_k)


class RmsNorm(nn.Module):
    """x [..., d] / rms(x) * gain. With `frozen` the gain is the constant 1."""

    def __init__(self, d: int, eps: float, frozen: bool) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(d), requires_grad=not frozen)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d], computed in float32."""
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.gain


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin, each [context, D]; the two halves of a head share their angles (half-split RoPE)."""
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angle = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.rope_theta**-half)
    angle = torch.cat([angle, angle], -1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE. x [B, heads, T, D]; cos, sin [T, D]."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention in float32, each [B, H, T, D]; torch's bfloat16 kernel is half as fast on a CPU."""
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)


Rounding = Callable[[Tensor], Tensor] | None


class Attention(nn.Module):
    """Grouped-query causal attention with RoPE and no biases."""

    def __init__(self, shape: Shape, bits: int) -> None:
        super().__init__()
        s, self.shape = shape, shape
        std = s.d**-0.5
        self.q_proj = GridWeight(s.heads * s.head_dim, s.d, bits=bits, std=std)
        self.k_proj = GridWeight(s.kv_heads * s.head_dim, s.d, bits=bits, std=std)
        self.v_proj = GridWeight(s.kv_heads * s.head_dim, s.d, bits=bits, std=std)
        self.o_proj = GridWeight(s.d, s.heads * s.head_dim, bits=bits, std=std / (2 * s.layers) ** 0.5)
        self.quantise_kv = False

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, rounding: Rounding = None) -> Tensor:
        """x [B, T, d] (normalised) -> [B, T, d]."""
        s = self.shape
        b, t, _ = x.shape
        x = rounding(x) if rounding else x

        def heads_of(weight: GridWeight, heads: int) -> Tensor:
            return F.linear(x, weight()).view(b, t, heads, s.head_dim).transpose(1, 2)

        q = rotate(heads_of(self.q_proj, s.heads), cos, sin)
        k = rotate(heads_of(self.k_proj, s.kv_heads), cos, sin)
        v = heads_of(self.v_proj, s.kv_heads)
        if self.quantise_kv:
            k, v = kv_int8(k.float()), kv_int8(v.float())
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        y = causal_attention(q, k, v)
        y = y.transpose(1, 2).reshape(b, t, s.heads * s.head_dim)
        return F.linear(rounding(y) if rounding else y, self.o_proj())


class Experts(nn.Module):
    """Top-k of E SwiGLU experts: w2(silu(w1 x) * w3 x), weighted by the renormalised router softmax."""

    def __init__(self, shape: Shape, bits: int) -> None:
        super().__init__()
        s, self.shape = shape, shape
        std = s.d**-0.5
        self.gate = GridWeight(s.experts, s.d, bits=8, std=std)
        self.w1 = GridWeight(s.experts, s.f, s.d, bits=bits, std=std)
        self.w3 = GridWeight(s.experts, s.f, s.d, bits=bits, std=std)
        self.w2 = GridWeight(s.experts, s.d, s.f, bits=bits, std=s.f**-0.5 / (2 * s.layers) ** 0.5)

    def forward(self, x: Tensor, rounding: Rounding = None) -> tuple[Tensor, Tensor]:
        """x [B, T, d] (normalised) -> (output [B, T, d], load-balancing loss [])."""
        s = self.shape
        flat = x.reshape(-1, s.d)
        flat = rounding(flat) if rounding else flat
        with torch.autocast("cpu", enabled=False):  # a router in bfloat16 would flip close choices
            probability = F.linear(flat.float(), self.gate().float()).softmax(-1)
        top, chosen = probability.topk(s.top_k, -1)
        top = top / top.sum(-1, keepdim=True)
        share = torch.zeros_like(probability).scatter(-1, chosen, top)  # [B*T, E]
        hidden = F.silu(F.linear(flat, self.w1().flatten(0, 1))) * F.linear(flat, self.w3().flatten(0, 1))
        hidden = rounding(hidden) if rounding else hidden
        hidden = (hidden.view(-1, s.experts, s.f) * share[..., None]).flatten(1)  # [B*T, E*f]
        y = hidden @ self.w2().transpose(1, 2).flatten(0, 1)
        used = (share > 0).float().mean(0) / s.top_k
        balance = s.experts * (used.detach() * probability.mean(0)).sum()
        return y.view(x.shape), balance


class Block(nn.Module):
    """One decoder layer: attention and experts, each with its norm and residual."""

    def __init__(self, shape: Shape, bits: int, frozen_norms: bool) -> None:
        super().__init__()
        self.input_norm = RmsNorm(shape.d, shape.norm_eps, frozen_norms)
        self.attention = Attention(shape, bits)
        self.post_norm = RmsNorm(shape.d, shape.norm_eps, frozen_norms)
        self.experts = Experts(shape, bits)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """x [B, T, d] -> (x [B, T, d], load-balancing loss [])."""
        x = x + self.attention(self.input_norm(x), cos, sin, rounding)
        y, balance = self.experts(self.post_norm(x), rounding)
        return x + y, balance


class Mixtral(nn.Module):
    """Embedding, decoder layers, final norm, LM head."""

    def __init__(self, shape: Shape, bits: int = 4, frozen_norms: bool = False) -> None:
        super().__init__()
        self.shape = shape
        # A tied embedding is also the LM head: small enough that the first logits are near zero.
        std = 0.5 * shape.d**-0.5
        self.embedding = GridWeight(shape.vocab, shape.d, bits=bits, std=std)
        self.head = None if shape.tied else GridWeight(shape.vocab, shape.d, bits=bits, std=std)
        self.blocks = nn.ModuleList(Block(shape, bits, frozen_norms) for _ in range(shape.layers))
        self.final_norm = RmsNorm(shape.d, shape.norm_eps, frozen_norms)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.rounding: Rounding = None

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, T] -> (logits [B, T, V] float32, load-balancing loss [], the mean over layers)."""
        t = ids.shape[1]
        cos, sin = self.cos[:t], self.sin[:t]
        table = self.embedding()
        x = F.embedding(ids, table)
        balance = torch.zeros(())
        for block in self.blocks:
            x, one = block(x, cos, sin, self.rounding)
            balance = balance + one / self.shape.layers
        x = self.final_norm(x)
        x = self.rounding(x) if self.rounding else x
        return F.linear(x, table if self.head is None else self.head()).float(), balance

    def start_quantising_weights(self, bits: int | None = None) -> None:
        """From now on every matrix is on its grid: the router in 8 bits, all others in `bits`.

        Without `bits`, those the model was made with.
        """
        routers = {id(block.experts.gate) for block in self.blocks}
        for module in self.modules():
            if isinstance(module, GridWeight):
                if bits is not None and id(module) not in routers:
                    module.bits = bits
                module.start_quantising()

    def quantise_kv(self, on: bool = True) -> None:
        """Round K (after RoPE) and V as the chip's int8 cache does."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.quantise_kv = on
