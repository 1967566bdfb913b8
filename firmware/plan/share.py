"""A chip's share of a model: its slice of every layer (tensor split) and its layers (pipeline stages)."""

from __future__ import annotations

import bisect
import dataclasses

from hdl.config import Config

from ..checkpoint import ModelShape
from ..compiler import outline
from ..errors import LpuError
from ..layout import LAYERS, Layout, Need, ceil_div
from .machine import fits

STAGES = 1 << 16
"""A pipeline of more is not planned: each stage is listed."""


def share(shape: ModelShape, chips: int, layers: int) -> ModelShape:
    """What the busiest of ``chips`` holds of ``layers`` layers: heads with their keys and values, ffn of every expert,
    vocabulary. The router and the residual stream are on every chip.

    More chips than key/value heads: a group's query heads are split, its keys and values held more than once.
    """
    group, most = shape.heads // shape.kv_heads, ceil_div(shape.kv_heads, chips)
    heads = most * group if chips <= shape.kv_heads else ceil_div(group, chips // shape.kv_heads)
    return dataclasses.replace(
        shape, heads=heads, kv_heads=most, ffn=ceil_div(shape.ffn, chips), vocab=ceil_div(shape.vocab, chips),
        layers=layers, bos=None, eos=(),
    )  # fmt: skip


def share_layout(shape: ModelShape, cfg: Config, weights: int) -> Layout:
    """Layout of a share, whether a chip holds it or not (:func:`stage_needs` tells)."""
    return Layout(outline(shape, weights), cfg, whole=False)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Layers of one pipeline stage; the first stage holds the embedding, the last one the LM head."""

    layers: int
    first: bool = False
    last: bool = False


def stage_needs(layout: Layout, stage: Stage) -> list[Need]:
    """What :class:`Layout` needs of each memory for so many layers and these ends of the model."""
    lay, s = layout, layout.model.shape
    tables = [lay.embed] * stage.first + [lay.lm_head] * (stage.last and not (stage.first and lay.model.tied))
    spare = max(lay.cfg.slots(lay.cfg.narrowest), lay.key_sets * lay.cfg.slots(8) - lay.cache_rows)
    values = s.kv_heads * lay.value_head_w
    needed = {
        LAYERS: stage.layers,
        "weight words per column": stage.layers * lay.layer_w + sum(m.weight_words for m in tables),
        "weight words up to the V cache": (stage.layers - 1) * lay.layer_w + values if stage.layers else 0,
        "scale rows": stage.layers * lay.layer_s + sum(m.rows for m in tables) + 1 + spare,
        "coefficient rows": stage.layers * lay.layer_c + s.context * lay.head_rows + lay.d_rows,
    }
    return [dataclasses.replace(n, needed=needed.get(n.memory, n.needed)) for n in layout.needs]


def cache_needs(layout: Layout, layers: int) -> dict[str, int]:
    """Words of each memory that one sequence's keys and values take in so many layers."""
    lay, heads = layout, layout.model.shape.kv_heads
    return {
        "weight words per column": layers * heads * (lay.value_head_w + lay.key_head_w),
        "scale rows": layers * heads * lay.cache_rows,
        "coefficient rows": layers * heads * lay.cache_rows,
    }


def sequences(cfg: Config, layout: Layout, stages: list[Stage]) -> int:
    """Sequences whose keys and values every stage has room for."""
    return min((_sequences(cfg, layout, stage) for stage in set(stages) if stage.layers), default=1)


def _sequences(cfg: Config, layout: Layout, stage: Stage) -> int:
    needs, cache = stage_needs(layout, stage), cache_needs(layout, stage.layers)
    low, high = 1, 1 << 20
    while low < high:
        users = (low + high + 1) // 2
        more = [dataclasses.replace(n, needed=n.needed + (users - 1) * cache.get(n.memory, 0)) for n in needs]
        low, high = (users, high) if fits(cfg, more) else (low, users - 1)
    return low


def stages_of(layout: Layout, cfg: Config, layers: int) -> list[Stage]:
    """The fewest stages that hold a model, their layers as equal as that allows.

    Raises :class:`LpuError` where not even one layer's share fits a chip.
    """

    (held,) = (n.available for n in layout.needs if n.memory == LAYERS)

    def most(first: bool, last: bool) -> int:
        """Layers of a stage, -1: not even its table."""
        counts = range(min(layers, held) + 1)
        return bisect.bisect(counts, False, key=lambda n: not fits(cfg, stage_needs(layout, Stage(n, first, last)))) - 1

    if most(True, True) == layers:
        return [Stage(layers, True, True)]
    begin, middle, end = most(True, False), most(False, False), most(False, True)
    if min(begin, end) < 0 or (middle == 0 and begin + end < layers):
        table = "\n".join(map(str, stage_needs(layout, Stage(1))))
        raise LpuError(f"a chip of config {cfg.name} does not hold a layer's share:\n{table}")
    between = max(0, ceil_div(layers - begin - end, middle) if middle > 0 else 0)
    count = between + 2
    if count > STAGES:
        raise LpuError(f"num_hidden_layers = {layers}: {count:,} stages, at most {STAGES:,} are planned for")
    even = ceil_div(layers, count)
    while min(even, begin) + between * min(even, middle) + min(even, end) < layers:
        even += 1
    room = [min(even, begin), *[min(even, middle)] * between, min(even, end)]
    # What is too much comes off the ends first: they hold a table beside their layers.
    over = sum(room) - layers
    for at in [0, count - 1, *range(1, count - 1)]:
        less = min(room[at], over)
        room[at], over = room[at] - less, over - less
    return [Stage(n, at == 0, at == count - 1) for at, n in enumerate(room)]
