"""``lpu plan``: its cycles are whole schedules', its chips hold what they are given, its figures hang together."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from firmware.checkpoint import ModelShape
from firmware.cli import main
from firmware.compiler import outline
from firmware.errors import LpuError
from firmware.layout import Layout
from firmware.plan import plots
from firmware.plan.cycles import schedule
from firmware.plan.links import NO_RTL, Links, Network
from firmware.plan.machine import MACHINES, TSP, TSP_STREAMS, chip_bytes, fits, get_machine, need_bytes
from firmware.plan.plan import Plan, Request, best_curve, make_plan, slowest_hop
from firmware.plan.published import figures
from firmware.plan.reasons import bounds, reasons, stream_bounds
from firmware.plan.share import Stage, sequences, share, share_layout, stage_needs, stages_of
from firmware.plan.size import sizes
from firmware.plan.source import PUBLIC, find, public_models
from firmware.program import build_program
from firmware.schedule import token_cycles
from firmware.simulate import shipped_models
from hdl.config import CONFIGS, LARGE, TINY, Config, ConfigError, get_config
from hdl.timing import get_timing

MIXTRAL = "mixtral-8x7b"
SMALL = ModelShape(
    vocab=96, d=64, layers=5, heads=4, kv_heads=2, head_dim=16, experts=4, top_k=2, ffn=48, context=24, window=None,
    rope_theta=1e4, eps=1e-5, tied=False, bos=None, eos=(),
)  # fmt: skip


def request(model: str = MIXTRAL, links: Links | None = None, **changed: int) -> Request:
    values = {"weights": 8, "context": 4096, "position": 2048} | changed
    return Request(find(model)[1], links=links or Links(), **values)


@functools.cache
def mixtral(cfg: Config = TSP, weights: int = 8) -> Plan:
    return make_plan(request(weights=weights), cfg)


def lpu(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


# Cycles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [*CONFIGS.values(), *MACHINES.values()], ids=lambda c: c.name)
@pytest.mark.parametrize("experts", [1, 4])
def test_the_parts_of_a_token_are_the_whole_schedule(cfg: Config, experts: int) -> None:
    """Layers counted once and multiplied: the same as a schedule of all of them, and as differences of few."""
    shape = dataclasses.replace(SMALL, experts=experts, top_k=min(2, experts), tied=experts == 1)
    shape = dataclasses.replace(shape, head_dim=min(shape.head_dim, cfg.head_max))
    program, floor = build_program(share_layout(shape, cfg, 8))
    for position in (0, 17, shape.context - 1):
        scheduled = schedule(shape, cfg, 8, position)
        whole = {
            layers: token_cycles(cfg, program.phases, layers, shape.context, floor, position, sampled=True)
            for layers in (1, 2, 3, shape.layers)
        }
        assert scheduled.token(shape.layers) == whole[shape.layers]
        assert scheduled.layer == whole[2] - whole[1] == whole[3] - whole[2]
        assert 0 < scheduled.mxm(shape.layers) <= scheduled.token(shape.layers)
        assert all(n <= p.cycles for p in scheduled.parts.values() for n in p.busy.values())


def test_few_layers_scheduled_are_as_long_as_many() -> None:
    """A program scheduled for one layer has the cycles of one scheduled for all."""
    layers = {n: schedule(dataclasses.replace(SMALL, layers=n), TSP, 8, 20) for n in (1, 2, 5)}
    assert len({s.token(5) for s in layers.values()}) == 1


def test_one_chip_is_the_shipped_model_as_the_rtl_runs_it() -> None:
    """1,411 cycles: what ``lpu bench`` and RTL simulation count; no link takes part."""
    shape = dataclasses.replace(find("stories-500k")[1])
    cfg = get_config("ulx3s-85f")
    row = make_plan(Request(shape, 4, min(shape.context, cfg.context_max), 64, Links()), cfg).within(1)
    assert row and (row.chips, row.cycles, sum(row.link_seconds.values())) == (1, 1411, 0.0)
    assert round(row.rate) == 70_872 and row.rate_all == row.rate and row.fill_seconds == 0
    assert row.utilisation == pytest.approx(0.725, abs=5e-4)


def test_a_planned_chip_is_not_buildable_and_the_others_are_as_before() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        Config(**{f.name: getattr(TSP, f.name) for f in dataclasses.fields(Config)})
    assert not set(MACHINES) & set(CONFIGS)
    assert all(c.skew == c.vlanes for c in CONFIGS.values())
    assert TSP.skew == TSP.lanes // 16 + 6 and get_timing(TSP).acc == TSP.skew + 6
    for field, value in (("vlanes", 96), ("vlanes", 1), ("accs", 2), ("sram_bytes", 0), ("lanes", 200)):
        with pytest.raises(ConfigError, match=f"^machine 'tsp': {'vlanes' if field == 'lanes' else field} = "):
            dataclasses.replace(TSP, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown config 'huge'; known: tiny"):
        get_machine("huge")


def test_published_sizes() -> None:
    """4 planes of 320 x 320 int8 MACs, 220 MiB, 900 MHz; streams bring 64 x 320 bytes a cycle."""
    assert TSP.macs_per_cycle(8) == 4 * 320 * 320 and TSP_STREAMS.macs_per_cycle(8) == 64 * 320
    for cfg in MACHINES.values():
        assert (cfg.lanes, chip_bytes(cfg), cfg.clock_hz) == (320, 220 << 20, 900e6)
        assert cfg.weight_depth * cfg.lanes * cfg.columns <= cfg.sram_bytes


# Memory ---------------------------------------------------------------------------------------------------


def test_needs_of_a_single_stage_are_the_layouts() -> None:
    for cfg in CONFIGS.values():
        for name in shipped_models():
            shape = find(name)[1]
            shape = dataclasses.replace(shape, context=min(shape.context, cfg.context_max))
            try:
                layout = Layout(outline(shape, cfg.weight_bits), cfg)
            except LpuError:
                continue
            assert stage_needs(layout, Stage(shape.layers, True, True)) == layout.needs
            assert stages_of(layout, cfg, shape.layers) == [Stage(shape.layers, True, True)]
            assert need_bytes(cfg, layout.needs) <= chip_bytes(cfg)
            assert sequences(cfg, layout, [Stage(shape.layers, True, True)]) >= 1


@pytest.mark.parametrize("chips", [1, 2, 3, 4, 5, 8])
def test_shares_cover_the_model(chips: int) -> None:
    """The busiest chip's share, times the chips, is no less than the model; one chip's is the model."""
    shape = find(MIXTRAL)[1]
    for wide in (shape, SMALL):
        s = share(wide, chips, 1)
        assert all(getattr(s, n) * chips >= getattr(wide, n) for n in ("heads", "kv_heads", "ffn", "vocab"))
        assert (s.d, s.experts, s.layers, s.heads % s.kv_heads) == (wide.d, wide.experts, 1, 0)
    if chips == 1:
        assert share(SMALL, 1, SMALL.layers) == SMALL


@pytest.mark.parametrize(("cfg", "weights"), [(TSP, 8), (TSP, 4), (TSP_STREAMS, 8)], ids=lambda v: str(v)[:20])
def test_chips_hold_the_model(cfg: Config, weights: int) -> None:
    plan = mixtral(cfg, weights)
    shape = plan.request.shape
    size = next(s for s in sizes(shape, cfg, 4096) if s.width == f"int{weights}")
    for row in plan.rows:
        assert sum(row.stages) == row.layers == shape.layers
        assert row.chip_bytes_used <= chip_bytes(cfg)
        assert size.weights + size.cache <= row.bytes_laid_out <= row.chips * chip_bytes(cfg)
        assert row.chips >= size.chips
        layout = share_layout(dataclasses.replace(share(shape, row.tensor, 1), context=4096), cfg, weights)
        ends = [Stage(n, i == 0, i == len(row.stages) - 1) for i, n in enumerate(row.stages)]
        assert all(fits(cfg, stage_needs(layout, stage)) for stage in ends)
        # As few stages as there can be: one stage less would be a layer more in one of them.
        room = max(n for n in range(40) if fits(cfg, stage_needs(layout, Stage(n))))
        assert len(row.stages) >= shape.layers / room
        assert sequences(cfg, layout, ends) == row.users >= 1


def test_a_pipeline_of_many_stages() -> None:
    """No chip holds more layers than the parameter counts; the fewest stages that hold the rest, as equal as can be."""
    layout = share_layout(SMALL, LARGE, 8)
    for layers in (1000, 10**6):
        stages = stages_of(layout, LARGE, layers)
        held = [s.layers for s in stages]
        assert sum(held) == layers and max(held) <= 255 and (len(held) - 1) * 255 < layers
        assert min(held[1:-1]) >= max(held) - 1
    with pytest.raises(LpuError, match="num_hidden_layers = 1000000000000: "):
        stages_of(layout, LARGE, 10**12)


def test_more_layers_than_the_parameter_counts_do_not_fit() -> None:
    Layout(outline(dataclasses.replace(SMALL, layers=255), 8), LARGE)
    with pytest.raises(LpuError, match=r"layers +needs +256 +has +255 +<- too small"):
        Layout(outline(dataclasses.replace(SMALL, layers=256), 8), LARGE)


def test_a_layer_too_large_names_the_memory() -> None:
    with pytest.raises(LpuError, match=r"(?s)chips a layer.*--context.*weight words per column"):
        make_plan(request(context=256, position=1), get_config("ulx3s-85f"))


# Links ----------------------------------------------------------------------------------------------------


def test_a_network() -> None:
    links = Links(gbps=80, ns=500, count=8)
    assert Network(links, 1, 1).token(4, 64, 8, 4, 1e8) == {"sums": 0, "stages": 0, "ends": 0}
    assert [Network(links, chips, 2).hops for chips in (2, 7, 8, 43, 44)] == [1, 1, 2, 2, 3]
    # 1,000 bytes at 10 GB/s to each of two others, over three links each: a third of 100 ns and a hop.
    assert Network(links, 3, 2).exchange(1000) == pytest.approx(500e-9 + 100e-9 / 3)
    assert Network(links, 3, 2).between == 1 and Network(links, 1, 2).between == 4
    # A large sum goes slice by slice, a small one at once.
    wide, narrow = (Network(links, 4, 1).sum(n, 8, 1e15) for n in (1 << 20, 8))
    assert wide > 1000e-9 > narrow >= 500e-9
    for count, chips, stages in ((1, 1, 2), (2, 2, 2), (1, 3, 1)):
        with pytest.raises(LpuError, match="links do not connect"):
            Network(Links(count=count), chips, stages)


def test_slower_links_make_slower_tokens() -> None:
    def rates(**links: float) -> list[float]:
        return [r.rate for r in make_plan(request(links=Links(**links)), TSP).rows]  # type: ignore[arg-type]

    base = rates()
    for worse in ({"ns": 1500.0}, {"gbps": 30.0}):
        assert all(a < b for a, b in zip(rates(**worse), base, strict=True))
    free = bounds(mixtral(), mixtral().rows[0])["links that take no time"]
    assert rates(ns=0.0, gbps=1e12)[0] == pytest.approx(free, rel=0.1)


def test_the_slowest_hop_gives_the_target() -> None:
    plan = mixtral()
    row = plan.answer(500)
    ns = slowest_hop(plan.request, TSP, row, 500)
    slow = make_plan(request(links=Links(ns=ns)), TSP).rows[plan.rows.index(row)]
    assert ns > plan.request.links.ns and slow.rate == pytest.approx(500, rel=1e-6)
    assert slowest_hop(plan.request, TSP, row, 1e9) == 0


# The plan -------------------------------------------------------------------------------------------------


def test_figures_of_a_row_hang_together() -> None:
    for plan in (mixtral(), mixtral(TSP_STREAMS), mixtral(TSP, 4)):
        for row in plan.rows:
            assert row.rate == pytest.approx(1 / (row.cycles / 900e6 + sum(row.link_seconds.values())))
            assert all(rate >= row.rate for rate in bounds(plan, row).values())
            assert row.rate <= row.rate_all <= row.rate * min(row.users, len(row.stages)) * (1 + 1e-9)
            assert 0 < row.utilisation < row.scheduled.mxm(row.layers) / row.cycles <= 1
        curve = best_curve(plan.rows)
        assert [r.rate for r in curve] == sorted(r.rate for r in curve)
        fastest, fewest = max(plan.rows, key=lambda r: r.rate), min(plan.rows, key=lambda r: r.chips)
        assert plan.answer(1e9) is fastest and plan.within(10_000) is fastest
        assert plan.answer(1).chips == fewest.chips and plan.within(fewest.chips - 1) is None


def test_mixtral() -> None:
    """Narrower weights take fewer chips, more positions more cycles, streams more cycles than memory at the columns."""
    wide, narrow = mixtral(), mixtral(TSP, 4)
    assert min(r.chips for r in narrow.rows) < min(r.chips for r in wide.rows)
    assert wide.answer(500).rate >= 500 and wide.request.shape.parameters_total == 46_702_792_704
    early = {r.tensor: r.cycles for r in make_plan(request(position=0), TSP).rows}
    late = {r.tensor: r.cycles for r in make_plan(request(position=4095), TSP).rows}
    assert all(early[t] < late[t] for t in early)
    streams = {r.tensor: r.cycles for r in mixtral(TSP_STREAMS).rows}
    assert all(streams[r.tensor] > r.cycles for r in wide.rows if r.tensor in streams)
    # A token's 12.7e9 weights at 64 x 320 bytes a cycle.
    assert stream_bounds(wide)["int8"] == pytest.approx(1446, abs=1)


def test_the_pages_state_these_figures() -> None:
    """Chips and tokens/s of README and docs/plan.md are what the command prints."""
    root = PUBLIC.parents[2]
    for cfg in (TSP, TSP_STREAMS):
        row = mixtral(cfg).answer(500)
        cells = (row.chips, f"{len(row.stages)} x {row.tensor}", f"{row.cycles:,}", f"{row.rate:,.0f}")
        page = (root / "docs" / "plan.md").read_text()
        line = next(text for text in page.splitlines() if text.startswith(f"| `{cfg.name}` | {row.chips} |"))
        assert all(f"| {cell} |" in line for cell in cells)
        assert f"{row.chips} chips" in (text := (root / "README.md").read_text()) and f"{row.rate:,.0f}" in text


def test_reasons_name_what_is_missing() -> None:
    plan = mixtral()
    row = plan.answer(500)
    text = "\n".join(reasons(plan, row, 500, figures(MIXTRAL)))
    assert "500 tokens/s per user are reached" in text and NO_RTL in text and "published by others" in text
    assert "Approximated: 4 planes" in text and "docs/numerics.md" in text
    assert "Missing: links that take no time would do" in reasons(plan, row, row.rate * 3)[0]
    assert "Missing: more multipliers" in reasons(plan, row, 1e9)[0]


def test_public_models() -> None:
    assert public_models() == ["llama-2-70b", MIXTRAL]
    assert find("llama-2-70b")[1].parameters_total == 68_976_648_192
    assert all(f.model in public_models() for name in public_models() for f in figures(name))


# The command ----------------------------------------------------------------------------------------------


def small_model(folder: Path, **changed: Any) -> Path:
    values = json.loads((PUBLIC / MIXTRAL / "config.json").read_text()) | {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "num_local_experts": 4, "max_position_embeddings": 32,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in (values | changed).items() if v != "missing"}))
    return path


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    report = tmp_path / "plan.json"
    done = lpu(MIXTRAL, "--config", "tsp", "--config", "tsp-streams", "--chips", 100, "--chips", 576, "--json", report)
    assert done.exit_code == 0, done.output
    assert NO_RTL in " ".join(done.output.split()) and "100 chips: too few" in done.output
    found = json.loads(report.read_text())
    assert {"model", "parameters", "target_tokens_per_second", "links", "plans", "published"} == set(found)
    assert NO_RTL in found["links"]["evidence"] and found["published"][0]["evidence"] == "published by others"
    wanted = {
        "config", "chips", "tensor_split", "stages", "cycles_per_token", "cycles", "cycles_evidence", "link_evidence",
        "tokens_per_second", "pipeline_fill_seconds", "mac_utilisation", "mxm_at_work", "busiest_slice",
    }  # fmt: skip
    for plan in found["plans"]:
        assert plan["on_chips"]["100"] is None and plan["on_chips"]["576"]["chips"] <= 576
        for row in [plan["answer"], *plan["rows"]]:
            assert wanted <= set(row) and sum(row["cycles"].values()) == row["cycles_per_token"]
            assert (row["cycles_evidence"], row["link_evidence"]) == ("static schedule", "estimate")


def test_a_folder_and_its_config_are_the_same_model(tmp_path: Path) -> None:
    path = small_model(tmp_path)
    outputs = {lpu(given, "--config", "large", "--link-ns", 0).output for given in (path, tmp_path)}
    assert len(outputs) == 1 and "tokens/s" in outputs.pop()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": "missing"}, "config.json: field hidden_size: missing"),
        ({"num_hidden_layers": "two"}, "config.json: field num_hidden_layers: an integer is needed"),
        ({"architectures": ["GPT2LMHeadModel"]}, "config.json: field architectures"),
        ({"num_hidden_layers": -1}, "config.json: field num_hidden_layers: must be at least 1, found -1"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: "),
        ({"num_attention_heads": -2}, "config.json: field num_attention_heads: must be at least 1"),
        ({"architectures": 5}, "config.json: field architectures"),
        ({"layer_types": 5}, "config.json: field layer_types"),
        ({"rms_norm_eps": 10**400}, "config.json: field rms_norm_eps"),
        ({"head_dim": 1024}, "head_dim = 1024"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_a_bad_config_is_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    done = lpu(small_model(tmp_path, **changed))
    assert done.exit_code == 2 and message in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "no model of that name is known (llama-2-70b, mixtral-8x7b"),
        ((__file__,), "config.json"),
        ((MIXTRAL, "--config", "huge"), "unknown config 'huge'"),
        ((MIXTRAL, "--context", 40000), "max_position_embeddings = 32768"),
        ((MIXTRAL, "--context", 8000, "--config", "large"), "holds up to 4096"),
        ((MIXTRAL, "--position", 4096), "position 4096"),
        ((MIXTRAL, "--weights", "fp16"), "int4 or int8"),
        ((MIXTRAL, "--chips", 0), "--chips"),
        ((MIXTRAL, "--link-gbps", 0), "--link-gbps"),
        ((MIXTRAL, "--json", "/nowhere/plan.json"), "no such folder"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_input(arguments: tuple[object, ...], message: str) -> None:
    done = lpu(*arguments)
    assert done.exit_code == 2 and message in done.output


def test_the_plot(tmp_path: Path) -> None:
    """Written where matplotlib is; a message where it is not."""
    path = tmp_path / "plan.svg"
    done = lpu(MIXTRAL, "--plot", path)
    if plots.available():
        assert done.exit_code == 0 and path.read_text().startswith("<?xml")
    else:
        assert done.exit_code == 2 and "matplotlib" in done.output and not path.exists()


def test_the_tiny_size_is_hashed_as_ever() -> None:
    """What a planned chip needs is no field of a configuration: images and bitstreams stay valid."""
    assert "skew" not in dataclasses.asdict(TINY)
