"""Coverage: what is counted, what is merged, what is excluded; and what the machine's watchers see."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hdl.config import TINY
from hdl.isa import Instr, Queue, SfuOp, Source, TopOp, VxOp, get_isa
from sim import numerics as nx
from sim.hazards import MachineError
from sim.machine import Uop
from verification import rules, runner
from verification.benches import BENCHES
from verification.coverage import __main__ as command
from verification.coverage import (
    campaign,
    exclusions,
    explained,
    fields,
    functional,
    machine_corners,
    numeric,
    pairs,
    report,
)
from verification.coverage.constants import constant_bits, constant_signals
from verification.coverage.design import Design
from verification.coverage.exclusions import Exclusion, StaleExclusion
from verification.coverage.points import Point, Reached, keyed, read
from verification.coverage.state import State
from verification.coverage.summary import CONSTANT, Figure, summary
from verification.directed_program import DirectedGenerator
from verification.lockstep import TracedMachine
from verification.random_program import random_program
from verification.rules import Code, Rule

VERILOG = r"""
module \TOP.unit (a, q, clk);
  reg \$auto$verilog_backend.cc:2355:dump_module$NUMBER  = 0;
  input a;
  input clk;
  output q;
  reg q = 1'h0;
  wire [1:0] \port$NUMBER$0 ;
  assign \port$NUMBER$0  = { 1'h0, a };
  always @(posedge clk)
    if (a) begin
      q <= \port$NUMBER$0 [0];
    end
endmodule

module TOP(a, q, clk);
  input a;
  input clk;
  output q;
  \TOP.unit  u0 (
    .a(a),
    .clk(clk),
    .q(q)
  );
endmodule
"""
"""A top and a unit, as Amaranth writes them."""


def verilog(top: str, number: int) -> str:
    return VERILOG.replace("TOP", top).replace("NUMBER", str(number))


def dat(path: Path, module: str, counts: dict[tuple[str, int, str], int]) -> Path:
    """Verilator's coverage of a module: page, line of the file and name, to the count."""
    lines = ["# SystemC::Coverage-3"]
    for (page, line, name), count in counts.items():
        fields = {"f": "x.v", "l": line, "n": 3, "t": "toggle", "page": f"{page}/{module}", "o": name, "h": "top"}
        text = "".join(f"\x01{key}\x02{value}" for key, value in fields.items())
        lines.append(f"C '{text}' {count}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_unit_has_one_key_wherever_it_is() -> None:
    """Amaranth's numbers and the top's name do not matter; a change of the text does."""
    one, other = Design(verilog("core", 7), "core"), Design(verilog("board", 4711), "board")
    assert one.key("core.unit") == other.key("board.unit")
    assert one.key("core") == other.key("board")
    changed = Design(verilog("core", 7).replace("if (a)", "if (!a)"), "core")
    assert one.key("core.unit") != changed.key("core.unit") and one.key("core") != changed.key("core")
    assert dict(one.instances()) == {"": "core", "u0": "core.unit"}
    assert one.short("core.unit$17") == "unit"


def test_points_are_read_and_merged(tmp_path: Path) -> None:
    """Two designs with the same unit: what one reached counts in the other."""
    one, other = Design(verilog("core", 7), "core"), Design(verilog("board", 4711), "board")
    begin = one.modules["core.unit"].line
    name = "port__0247__0240"
    counts = {("v_toggle", begin + 7, f"{name}[0]:0->1"): 0, ("v_branch", begin + 10, "if"): 2}
    first = read(dat(tmp_path / "one.dat", "core.unit", counts), one)
    assert first == {"core.unit": {Point("toggle", 7, 3, "port$7$0[0]:0->1"): 0, Point("line", 10, 3, "if"): 2}}
    target = keyed(first, one)
    reached = Reached()
    assert reached.add(target) == 1
    key = one.key("core.unit")
    assert [p.what for p in reached.missing(key, target[key][1])] == ["port$7$0[0]:0->1"]
    counts = {("v_toggle", begin + 7, "port__0244711__0240[0]:0->1"): 3}
    assert reached.add(keyed(read(dat(tmp_path / "two.dat", "board.unit", counts), other), other)) == 1
    assert not reached.missing(key, target[key][1])


BEYOND = "C '\x01f\x02x\x01l\x02999\x01n\x021\x01page\x02v_line/core\x01o\x02block' 1"
"""A point in a line that the design does not have."""


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not Verilator's"), ("# SystemC::Coverage-3\nrubbish\n", "not a point"),
     (f"# SystemC::Coverage-3\n{BEYOND}\n", "changed")],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.dat"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path, Design(verilog("core", 7), "core"))


def test_constant_bits_are_found() -> None:
    """The zero above a signal is constant in every instance; what an input moves is not."""
    text = verilog("core", 7)
    found = constant_signals(Design(text, "core"), constant_bits(text, "core"))
    assert found["core.unit"]["port$7$0"] == {1}
    assert "q" not in found["core.unit"] and not found["core"]


def test_every_exclusion_has_to_match() -> None:
    """One that matches nothing, or a bin that was reached all the same, is an error."""
    live, stale = Exclusion("bin", r"A\..*", "never"), Exclusion("line", "x", "gone")
    assert exclusions.first_match("bin", "A.b", (live, stale)) is live
    assert exclusions.first_match("line", "A.b", (live, stale)) is None
    exclusions.check_used([live], (live,))
    with pytest.raises(StaleExclusion, match="'x' matches nothing"):
        exclusions.check_used([live], (live, stale))


def test_excluded_bins_are_wanted_ones() -> None:
    """The functional exclusions all mean something, and few bins."""
    bins = functional.wanted(TINY)
    own = [e for e in exclusions.EXCLUSIONS if e.kind == "bin"]
    used = {exclusions.first_match("bin", name) for name in bins} - {None}
    assert used == set(own)
    assert sum(exclusions.first_match("bin", name) is not None for name in bins) < len(bins) // 100


def _top_twice(c: Code) -> str:
    last = c.lists(40, 8)
    emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT, n1=1)
    c.at(emit + c.t.top_noise, Queue.TOP, op=TopOp.EMIT, n1=1)
    return "emitted already"


def _lane_beyond(c: Code) -> str:
    acc = c.y(60, 1, max=1)
    at = acc + c.t.max
    c.x(at, 1)
    c.at(at, Queue.VX, op=VxOp.EXP, source=Source.X, unit=1)
    c.at(at + c.t.vx_exp, Queue.SFU, op=SfuOp.CAPTURE)
    c.at(at + c.t.vx_exp + 12, Queue.SFU, op=SfuOp.PROB, dst=1, b=7)
    return r"P\[7\] of 4 rows"


def _row_of_logits(op: VxOp) -> Rule:
    def code(c: Code) -> str:
        last = c.lists(40, 8)
        emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT, expert=1, n1=3, d1=c.t.top_step)
        c.at(emit + 60, Queue.VX, op=op, source=Source.T)
        return r"T\[3\] is read"

    return code


@pytest.mark.parametrize(
    ("bins", "rule"),
    [({"TOP.EMIT>>TOP.EMIT"}, _top_twice), ({"SFU.PROB.b=max"}, _lane_beyond)]
    + [({f"VX.{op.name}.source=T"}, _row_of_logits(op)) for op in VxOp if op is not VxOp.EXP],
)  # fmt: skip
def test_excluded_bins_are_refused(bins: set[str], rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine runs no program that would reach them."""
    monkeypatch.setitem(rules.RULES, "excluded", rule)
    whole, message = rules.program(TINY, "excluded", 0)
    machine = TracedMachine(TINY, sampler := functional.Sampler(TINY))
    whole.load(machine)
    with pytest.raises(MachineError, match=message):
        machine.finish()
    assert all(exclusions.first_match("bin", name) for name in bins)
    assert not sampler.confirmed


def test_no_product_with_a_probability_is_beyond_a_word() -> None:
    """The reason of the other excluded bins."""
    p, coef = np.array([[0], [1], [nx.ONE]]), np.array([-(1 << 15), -1, 0, 1, (1 << 15) - 1])
    reached = {name for shift in range(64) for name in numeric.exp_out(p, coef, shift)}
    refused = {name for name in numeric.WANTED if exclusions.first_match("bin", name)}
    assert refused == {"EXP.out.sat+", "EXP.out.sat-"} and not reached & refused and "EXP.out.min" in reached


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A small design, one point of each kind reached and one not."""
    monkeypatch.setattr("verification.coverage.state.ROOT", tmp_path)
    text = verilog("core", 7)
    out = State("tiny", Design(text, "core"), text)
    begin = out.design.modules["core.unit"].line
    counts = {
        ("v_line", begin + 9, "block"): 4, ("v_branch", begin + 10, "if"): 0,
        ("v_toggle", begin + 5, "q:0->1"): 1, ("v_toggle", begin + 5, "q:1->0"): 0,
        ("v_toggle", begin + 7, "port__0247__0240[1]:0->1"): 0,
    }  # fmt: skip
    points = keyed(read(dat(tmp_path / "run.dat", "core.unit", counts), out.design), out.design)
    out.set_target(points)
    out.merge("block-verilator-1", points, {"VX.PASS>>VX.ADD"})
    return out


def test_a_summary_counts_each_point_once(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached, missing and constant points; the state is there again in another process."""
    monkeypatch.setattr(exclusions, "check_used", lambda used: None)
    for again in (state, State("tiny", state.design, verilog("core", 7))):
        result = summary(again, TINY)
        assert result.modules["unit"] == {"line": Figure(2, 1), "toggle": Figure(2, 1)}
        assert result.excluded["toggle", CONSTANT] == 1
        assert result.missing["toggle", "unit"] == ["q:1->0"]
        assert result.totals["functional"].reached == 1
        assert result.families["back-to-back pairs"].reached == 1
    page, text = report.html(result), report.text(result)
    assert "q:1-&gt;0" in page and "q: 1-&gt;0" not in page and "    q: 1->0" in text
    assert CONSTANT in page and CONSTANT in text
    record = report.record(result, "command", ("2026-01-01", "abc"), 5)
    assert record.figures["line, % (goal 98)"] == 50.0 and record.seeds == "1 .. 1"


def test_what_is_missing_has_a_reason() -> None:
    """By the line, or by the signal's name; what has none of its own says so."""
    assert "no code for" in explained.why_line("icu.queue_sr: 3'h6:")
    assert "`fault`" in explained.why_line(r"icu.queue_abc: if (\$38 ) begin")
    assert explained.why_line("mxm: if (x) begin") == explained.NOT_YET
    assert "counters" in explained.why("host.cycles[31]:0->1") and explained.why("odd[0]:0->1") == explained.UNEXPLAINED


def test_a_stale_exclusion_stops_the_summary(state: State) -> None:
    """The small design has none of the lines and arrays that the list excludes."""
    with pytest.raises(StaleExclusion):
        summary(state, TINY)


def test_an_excluded_bin_that_is_reached_is_an_error(state: State) -> None:
    state.merge("block-verilator-2", {}, {"TOP.EMIT>>TOP.EMIT"})
    with pytest.raises(ValueError, match=r"TOP.EMIT>>TOP.EMIT is excluded .* but was reached"):
        summary(state, TINY)


def test_damaged_state_is_named(state: State) -> None:
    path = state.folder / "functional.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"functional.json"):
        State("tiny", state.design, verilog("core", 7))


def test_functional_slice(rng: np.random.Generator, tmp_path: Path) -> None:
    """A few directed programs reach most bins; without a commit none counts."""
    path = tmp_path / "bins.json"
    sampler = functional.Sampler(TINY, path)
    for i in range(6):
        whole, _ = random_program(TINY, rng, generator=DirectedGenerator)
        machine = TracedMachine(TINY, sampler)
        whole.load(machine)
        machine.finish()
        assert sampler.seen and (i or not sampler.confirmed)
        sampler.commit()
    bins = functional.wanted(TINY)
    assert functional.load(path) == sampler.confirmed <= bins
    seen = {family: sum(functional.family(n) == family for n in sampler.confirmed) for family in
            ("opcode x field corner", "back-to-back pairs", "pairs across slices", "numeric corners")}  # fmt: skip
    print(f"{len(sampler.confirmed)} of {len(bins)} bins: {seen}")
    assert len(sampler.confirmed) > len(bins) // 3 and min(seen.values()) > 15
    machine = TracedMachine(TINY, sampler)
    whole.load(machine)
    machine.finish()
    with sampler.run():
        assert not sampler.seen, "what was not committed is dropped"


def test_only_programs_with_something_new_are_worthwhile(rng: np.random.Generator, tmp_path: Path) -> None:
    """Where earlier runs' bins are known; else every program is."""
    known = tmp_path / "known.json"
    whole, _ = random_program(TINY, rng)
    for bins, expected in ((functional.wanted(TINY), False), (set[str](), True)):
        functional.save(known, bins)
        for path in (known, None):
            sampler = functional.Sampler(TINY, None, path)
            machine = TracedMachine(TINY, sampler)
            whole.load(machine)
            machine.finish()
            assert sampler.worthwhile == (expected or path is None)


def test_watching_changes_nothing() -> None:
    """The same results; and the functions are the old ones again behind it."""
    before, reached = nx.gain, set[str]()
    x = np.array([-(1 << 17), 5, 1 << 20, 0])
    plain = nx.gain(x, 3, 1, 1)
    with numeric.watching(reached):
        assert (nx.gain(x, 3, 1, 1) == plain).all()
        assert nx.gain is not before
    assert nx.gain is before
    assert {"GAIN.in.sat+", "GAIN.in.tie+", "GAIN.out.zero"} <= reached <= numeric.WANTED | {"GAIN.in.zero"}


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        ("exp2_neg", (np.array([0, 65536, 69000, 73000, -1]),), {"one", "last", "half", "clamp", "negative"}),
        ("exp2_neg", (np.array([(1 << 32) - 1]),), {"none", "farthest"}),
        ("rsqrt", ((1 << 64) - 1, 5), {"sum_sat", "sat", "n63", "table255"}),
        ("rsqrt", (0, 0), {"zero", "table0", "n0", "clipped"}),
        ("rsqrt", (255 << 55, 0), {"table127"}),
        ("rsqrt", (1 << 61, 0), {"table128"}),
        ("recip", (1,), {"one", "table0", "clipped"}),
        ("prob_scalar", (65536,), {"one"}),
        ("masked_max", (np.array([1, 2]), 0), {"none"}),
        ("masked_max", (np.array([-7, -7, 3]), 2), {"masked", "tie", "negative"}),
        ("scalar_mul", (nx.Scalar(0xFFFF, 127), nx.Scalar(0xFFFF, 127)), {"top1", "largest", "sat+"}),
    ],
)
def test_observers_name_corners(function: str, args: tuple[object, ...], expected: set[str]) -> None:
    names = {name.split(".")[-1] for name in numeric.OBSERVERS[function](*args)}
    assert expected <= names


def test_ties_and_ends() -> None:
    assert set(numeric.ties(np.array([6, 5, -6]), 2)) == {"tie+", "tie-"}
    assert set(numeric.ties(np.array([1, 4, -5]), 2)) == set() == set(numeric.ties(np.array([0, 1]), 0))
    assert set(numeric.ends(np.array([127, -128]), 8)) == {"min"}
    assert set(numeric.ends(np.array([128, -129, 0]), 8)) == {"sat+", "sat-", "zero"}


def test_wanted_names_are_those_that_can_be_seen() -> None:
    """Every name is of one family; the operations of the pairs are the instruction set's."""
    kinds = fields.wanted(TINY), pairs.wanted(TINY), numeric.WANTED, machine_corners.wanted(TINY)
    assert sum(map(len, kinds)) == len(functional.wanted(TINY))
    assert {op.split(".")[0] for op in pairs.operations(TINY)} == {q.name for q in Queue}
    fmt = get_isa(TINY).formats[Queue.SFU]
    seen = set(fields.of_instruction(fmt, Instr(Queue.SFU, {"op": SfuOp.PROB, "dst": 7, "n1": 3})))
    assert {"SFU.PROB.dst=max", "SFU.PROB.n1=many", "SFU.PROB.d1=1", "SFU.PROB.time=0"} <= seen <= kinds[0]


def test_pairs_come_at_the_least_distance() -> None:
    """GAIN's result would meet ROPE's on Z: ROPE comes two cycles later; other queues' micro-ops are neighbours."""
    assert pairs.closest(TINY, "VX.GAIN", "VX.ROPE") == 2 and pairs.closest(TINY, "VX.ROPE", "VX.GAIN") == 1
    follow = pairs.Pairs(TINY)

    def uop(queue: Queue, **values: int) -> Uop:
        return Uop(queue, values, 0, 0, 0, True, True)

    assert not set(follow.take(4, uop(Queue.VX, op=2)))
    assert not set(follow.take(5, uop(Queue.SR, op=0)) ) - {"VX.GAIN|SR.RUN"}
    assert set(follow.take(6, uop(Queue.VX, op=3))) == {"VX.GAIN>>VX.ROPE", "SR.RUN|VX.ROPE"}


def test_jobs_end_with_lockstep_runs_without_end() -> None:
    """Benches that exist; each run has a name of its own."""
    found = campaign.jobs(1, units=True)
    some = [next(found) for _ in range(40)]
    assert len(set(map(str, some))) == 40
    assert {job.bench for job in some} <= {bench.name for bench in BENCHES}
    assert some[0].bench == campaign.TARGET and set(campaign.UNITS) <= {job.bench for job in some}


def test_lines_and_toggles_of_a_bench(seed: int) -> None:
    """A small bench with coverage: built in a folder of its own; nearly all of its lines are reached."""
    bench = next(b for b in BENCHES if b.name == "selftest")
    with pytest.raises(ValueError, match="Verilator only"):
        runner.run(bench, sim="icarus", config="tiny", coverage=True)
    runner.run(bench, sim="verilator", config="tiny", seed=seed, coverage=True)
    folder = runner.coverage_folder("selftest", "tiny")
    design = Design((folder / "selftest.v").read_text(), "selftest")
    points = read(folder / "coverage.dat", design)
    lines = {p: n for own in points.values() for p, n in own.items() if p.kind == "line"}
    toggles = {p: n for own in points.values() for p, n in own.items() if p.kind == "toggle"}
    missed = [p for p, n in lines.items() if not n and "dump_module" not in design.modules["selftest"].source(p.line)]
    print(f"{len(lines)} lines, missed {missed}; {sum(map(bool, toggles.values()))} of {len(toggles)} toggles")
    assert lines and not missed
    assert sum(map(bool, toggles.values())) > len(toggles) // 4
    assert not json.dumps(sorted(re.sub(r"\W", "", p.what) for p in toggles)).count("__02")


def test_a_bench_that_fails_ends_the_run(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is merged, no record is written, and the exit code says so."""
    written: list[object] = []
    job = campaign.Job("selftest", "verilator", 2, {"fail": True})
    monkeypatch.setattr(campaign, "jobs", lambda seed, units: iter([job]))
    monkeypatch.setattr(campaign, "open_state", lambda config: state)
    monkeypatch.setattr(command.evidence, "write", written.append)
    before = dict(state.reached.points), set(state.bins), list(state.runs)
    done = CliRunner().invoke(command.main, ["--minutes", "1"])
    assert done.exit_code == 1 and "bench selftest failed in verilator: 1 of 2 tests" in done.output
    assert "repeat with: " in done.output and not written
    assert before == (dict(state.reached.points), state.bins, state.runs)
