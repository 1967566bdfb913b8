"""Why a plan is as fast as it is, and what it lacks: sentences from its figures."""

from __future__ import annotations

from collections.abc import Sequence

from ..bench.timeline import SLICES
from .cycles import ATTENTION, EXPERTS, HEAD, IN_LAYERS, PARTS
from .links import NO_RTL
from .machine import Machine, chip_bytes
from .plan import Plan, Row, peak_cycles, slowest_hop
from .published import TIER, Figure
from .size import amount, sizes

MIB = 1 << 20
STREAM_BYTES = 64 * 320
"""Bytes a cycle on the TSP's streams: 64 of 320 (ISCA 2020)."""


def reasons(plan: Plan, row: Row, target: float, published: Sequence[Figure] = ()) -> list[str]:
    """What a row reaches, what sets its chips, where its time goes, what would be if that were away."""
    found = [_verdict(plan, row, target), _chips(plan, row), _time(row), _slices(row), _bounds(plan, row)]
    beside = [_beside(plan, row, f) for f in published if f.rate]
    return [*found, *_links(plan, row, target), *_approximated(plan), *beside]


def bounds(plan: Plan, row: Row) -> dict[str, float]:
    """Tokens/s of a user if something cost nothing."""
    request, links = plan.request, sum(row.link_seconds.values())
    useful = peak_cycles(request.shape, plan.cfg, request.weights, request.position) / row.tensor
    found = {
        "an MXM that never waits": 1 / (row.scheduled.mxm(row.layers) / row.clock_hz + links),
        "every multiplier at work in every cycle": 1 / (useful / row.clock_hz + links),
    }
    if not links:
        return found
    free = {"links that take no time": row.clock_hz / row.cycles}
    return {**free, **found, "every multiplier at work and links that take no time": row.clock_hz / useful}


def stream_bounds(plan: Plan) -> dict[str, float]:
    """Tokens/s if a token's weights passed the TSP's streams one after the other and nothing else took time.

    Nothing for a chip that is no TSP.
    """
    if not isinstance(plan.cfg, Machine):
        return {}
    macs = plan.request.shape.macs_by_kind(plan.request.position)["weight"]
    return {width: plan.cfg.clock_hz * STREAM_BYTES / (macs * size) for width, size in (("int8", 1), ("fp16", 2))}


def _verdict(plan: Plan, row: Row, target: float) -> str:
    if row.rate >= target:
        return f"{target:,g} tokens/s per user are reached on {row.split}: {row.rate:,.0f}."
    lacking = "more multipliers in a layer (on a chip, or by a finer split), or a higher clock"
    for name, rate in bounds(plan, row).items():
        if rate >= target:
            lacking = f"{name} would do ({rate:,.0f})"
            break
    return (
        f"{target:,g} tokens/s per user are not reached: {row.rate:,.0f} on {row.split}, {target / row.rate:.1f} x "
        f"short. Missing: {lacking}."
    )


def _chips(plan: Plan, row: Row) -> str:
    request, held = plan.request, chip_bytes(plan.cfg) / MIB
    size = next(s for s in sizes(request.shape, plan.cfg, request.context) if s.width == f"int{request.weights}")
    useful = size.weights + size.cache
    least = min(r.tensor for r in plan.rows)
    split = f" Fewer than {least} chips do not hold a layer, so each is split." if least > 1 else ""
    return (
        f"SRAM sets the chips: {amount(size.weights)} of weights and {amount(size.cache)} of keys and values would "
        f"fill {size.chips:,} chip{'s' * (size.chips > 1)} of {held:,.4g} MiB to the last byte. As laid out, "
        f"{useful / row.bytes_laid_out:.0%} of what is taken holds them (the rest: whole words and sets, scales, heads "
        f"held twice), the fullest chip is at {row.chip_bytes_used / chip_bytes(plan.cfg):.0%}, and a stage holds "
        f"whole layers.{split}"
    )


def _time(row: Row) -> str:
    parts = {n: row.scheduled.parts[n].cycles * (row.layers if n in IN_LAYERS else 1) / row.clock_hz for n in PARTS}
    shares = [f"{name} {seconds / row.seconds:.0%}" for name, seconds in parts.items()]
    links = sum(row.link_seconds.values())
    if links:
        shares.append(
            f"links {links / row.seconds:.0%} (sums inside layers {row.link_seconds['sums'] / row.seconds:.0%}, "
            f"between stages {row.link_seconds['stages'] / row.seconds:.0%})"
        )
    return f"A token's {row.seconds * 1e6:,.1f} µs: {', '.join(shares)}."


def _slices(row: Row) -> str:
    s = row.scheduled
    parts = {name: s.parts[name] for name in (ATTENTION, EXPERTS, HEAD)}
    busiest = ", ".join(f"{n}: {SLICES[p.busiest]} {p.busy[p.busiest] / p.cycles:.0%}" for n, p in parts.items())
    waits = sorted(s.waits.items(), key=lambda item: -item[1])[:4]
    text = ", ".join(f"{note} {cycles}" for note, cycles in waits)
    return (
        f"The busiest slice of a chip is at work: {busiest}. The MXM is at work in "
        f"{s.mxm(row.layers) / row.cycles:.0%} of the cycles; of a layer's {s.layer} it waits longest before: {text}."
    )


def _bounds(plan: Plan, row: Row) -> str:
    what_if = [f"{name}: {rate:,.0f}" for name, rate in bounds(plan, row).items()]
    return f"Tokens/s per user with {'; '.join(what_if)}."


def _links(plan: Plan, row: Row, target: float) -> list[str]:
    if row.chips == 1:
        return []
    request = plan.request
    found = [f"Links are an estimate: {NO_RTL}. Assumed: {request.links.text()}."]
    if row.rate >= target:
        hop = slowest_hop(request, plan.cfg, row, target)
        found[0] += f" With that bandwidth {target:,g} tokens/s hold up to {hop:,.0f} ns a hop."
    if row.tensor > 1:
        found.append(
            "Sums over chips add parts that are each rounded: docs/numerics.md defines no such sum, so tokens could "
            "differ from the reference's."
        )
    return found


def _approximated(plan: Plan) -> list[str]:
    return [f"Approximated: {text}." for text in plan.cfg.approximations] if isinstance(plan.cfg, Machine) else []


def _beside(plan: Plan, row: Row, figure: Figure) -> str:
    text = f"{figure.what}: {figure.rate:,g} tokens/s ({TIER}, {figure.source})."
    if row.tensor > 1:
        text += (
            f" The plan's {row.rate:,.0f} are one user alone, int{plan.request.weights} and {row.tensor} chips inside "
            "a layer; width, split and users of the published run are not known."
        )
    if rates := stream_bounds(plan):
        text += (
            " Derived: without a split inside layers, a token's weights pass a TSP's streams one after the other, at "
            f"most {rates['int8']:,.0f} tokens/s in int8 and {rates['fp16']:,.0f} in fp16."
        )
    return text
