"""Mutation: what is mutated, what is not, which mutants are chosen; one that is noticed and one that is none."""

from __future__ import annotations

import ast
import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from verification.mutation import explained, kept, report, sample, target, tree
from verification.mutation.campaign import Campaign, Store
from verification.mutation.judge import BrokenTarget, Judge, Stopped
from verification.mutation.result import BUILT, KILLED, SAME, SURVIVED, Result
from verification.mutation.site import KINDS, Site
from verification.mutation.sites import ROOT, all_sites, files, sites
from verification.mutation.team import Team
from verification.mutation.tree import Tree

SOURCE = b'''
"""Text 1 + 2."""
DEPTH: int = 3

class Unit:
    def elaborate(self, platform):
        m = Module()
        if DEPTH < 1:
            raise ValueError(f"{DEPTH + 1}")
        assert DEPTH == 3
        a = Signal(8, name="a1")
        b = Signal(init=1)
        m.d.sync += [a.eq(b - 1), b.eq(~a.any())]
        with m.If(a & b):
            m.d.comb += a.eq(Mux(b, a, 0))
        late = delayed(m, a, 2, reset=True)
        return timing.acc
'''


@pytest.fixture(scope="module")
def places() -> dict[str, list[Site]]:
    return all_sites()


def _texts(kind: str, path: str = "hdl/x.py") -> set[str]:
    """``old -> new`` of the mistakes of a kind."""
    return {f"{s.old.decode()} -> {s.new.decode()}" for s in sites(path, SOURCE) if s.kind == kind}


def test_mistakes() -> None:
    """Each kind, where it applies."""
    assert _texts("operator") == {
        "b - 1 -> (b + 1)", "~a.any() -> a.any()", "a.any -> a.all", "a & b -> (a | b)", "a & b -> (a ^ b)",
    }  # fmt: skip
    assert _texts("swap") == {"b - 1 -> (1 - b)", "Mux(b, a, 0) -> Mux(b, 0, a)"}
    assert _texts("condition") == {"a & b -> (a & b) == 0"}
    assert _texts("reset") == {
        "Signal(init=1) -> Signal(init=1, reset_less=True)", "1 -> 0", "True -> False",
        'Signal(8, name="a1") -> Signal(8, name="a1", reset_less=True)',
    }  # fmt: skip
    assert _texts("statement") == {
        "a.eq(b - 1) -> *()", "b.eq(~a.any()) -> *()", "m.d.comb += a.eq(Mux(b, a, 0)) -> pass",
    }  # fmt: skip
    assert _texts("latency") == {
        "m.d.sync -> m.d.comb", "2 -> 2 + 1", "2 -> 2 - 1", "timing.acc -> (timing.acc + 1)",
        "timing.acc -> (timing.acc - 1)",
    }  # fmt: skip
    assert "3 -> 4" in _texts("constant") and "3 -> 4" in _texts("latency", "hdl/timing.py")


def test_checks_and_text_are_left_alone() -> None:
    """Messages, guards, assertions, names, annotations."""
    lines = SOURCE.decode().splitlines()
    guarded = {i + 1 for i, line in enumerate(lines) if "raise" in line or "assert" in line or "if DEPTH" in line}
    found = sites("hdl/x.py", SOURCE)
    assert not guarded & {s.line for s in found}
    assert not any(s.old in (b'"a1"', b"int") for s in found)


def test_every_mistake_parses_and_has_a_name_of_its_own(places: dict[str, list[Site]]) -> None:
    found = [site for some in places.values() for site in some]
    assert len({s.id for s in found}) == len(found) > 5000
    assert {s.kind for s in found} == set(KINDS)
    for path, some in places.items():
        source = (ROOT / path).read_bytes()
        for site in some[:: max(1, len(some) // 20)]:
            changed = site.applied(source)
            ast.parse(changed)
            assert changed != source
            assert source[site.start : site.end] == site.old


def test_names_stay_when_lines_move(places: dict[str, list[Site]]) -> None:
    path = "hdl/vxm/topk.py"
    moved = sites(path, b"# a line more\n" + (ROOT / path).read_bytes())
    assert [s.id for s in moved] == [s.id for s in places[path]]


def test_every_file_has_a_plan_whose_tests_exist(places: dict[str, list[Site]]) -> None:
    used = set()
    assert list(places) == files()
    for path in (path for path, some in places.items() if some):
        plan = target.plan(path)
        used.add(plan.pattern)
        assert all((ROOT / step[0].split("::")[0]).exists() for step in plan.steps)
        assert path == "sim/numerics.py" or plan.designs
    assert used == {plan.pattern for plan in target.PLANS}
    with pytest.raises(KeyError, match=r"hdl/new\.py: no plan"):
        target.plan("hdl/new.py")


@pytest.mark.parametrize("count", [200, 300])
def test_choice(places: dict[str, list[Site]], count: int) -> None:
    """Exactly so many, from every file, of every kind; another seed chooses others."""
    quotas = sample.quotas(places, count)
    assert sum(quotas.values()) == count
    assert all(quotas[path] >= min(2, len(some)) for path, some in places.items() if some)
    chosen = [s for path, n in quotas.items() for s in sample.order(path, places[path], 1)[:n]]
    assert min(Counter(s.kind for s in chosen).values()) >= count // 40
    path = "hdl/sxm.py"
    first, again, other = (sample.order(path, places[path], seed)[:20] for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(s.id for s in sample.order(path, places[path], 1)) == sorted(s.id for s in places[path])


def _result(site: Site, verdict: str, by: str = "now") -> Result:
    noticed = target.looked_at(site.path) if verdict == SAME else ""
    return Result(site.id, verdict, noticed, 1.0, 1.0, by, tree.sources_hash(tree.MUTATED))


def test_what_is_known_is_not_tried_again(tmp_path: Path) -> None:
    """Equal texts are replaced; changed tests make all be tried again, or what survived, or nothing; as asked."""
    path = "hdl/sxm.py"
    store = Store(tmp_path / "results.json")
    run = Campaign(200, 1, store=store)
    quota, order = run.quotas[path], run.orders[path]
    assert run.waiting((path,)) == order[0]
    for site, verdict in zip(order, [SAME, KILLED, SURVIVED], strict=False):
        store.put(f"{site.id}@{run.target}", vars(_result(site, verdict, run.target)))
    assert run.waiting((path,)) == order[3]
    for site in order[3 : quota + 1]:
        store.put(f"{site.id}@{run.target}", vars(_result(site, BUILT, run.target)))
    run = Campaign(200, 1, store=Store(store.path))
    assert run.waiting((path,)) is None
    assert report.share(run.results()) == (quota - 1) / quota

    run = Campaign(200, 1, store=Store(store.path), retry=True)
    assert run.waiting((path,)) == order[2]
    run.target = "later"
    assert run.waiting((path,)) == order[0]
    run.trust, run.kept = True, {}
    assert run.waiting((path,)) == order[2]
    run.retry = False
    assert run.waiting((path,)) is None
    run.tested = "other hardware"
    assert run.waiting((path,)) == order[0]


def test_kept_results_stand_where_the_hardware_is_the_same(tmp_path: Path) -> None:
    """With ``--trust``, and until there is a newer one; what survived is tried again where that is asked for."""
    path = "hdl/sxm.py"
    run = Campaign(200, 1, store=Store(tmp_path / "results.json"), trust=True)
    order = run.orders[path]
    results = [_result(site, verdict) for site, verdict in zip(order, [KILLED, SURVIVED], strict=False)]
    kept.write(results, tmp_path / "kept.jsonl")
    run.kept = kept.read(tmp_path / "kept.jsonl")
    assert [run.known(site) for site in order[:3]] == [*results, None]
    run.retry = True
    assert run.known(order[1]) is None
    run.keep(newer := _result(order[0], BUILT, run.target))
    assert run.known(order[0]) == newer
    same = _result(order[2], SAME)
    run.kept[same.id] = same
    assert run.known(order[2]) == same
    run.kept[same.id] = dataclasses.replace(same, by="a design that had nothing of it")
    assert run.known(order[2]) is None
    run.tested = "other hardware"
    run.target = "and tests"
    assert run.waiting((path,)) == order[0]
    run.tested, run.trust = tree.sources_hash(tree.MUTATED), False
    assert run.waiting((path,)) == order[0]


def test_explanations_are_of_mutants_that_exist(places: dict[str, list[Site]]) -> None:
    keys = {site.key for some in places.values() for site in some}
    told = [*explained.EQUIVALENT, *explained.OPEN]
    assert len(told) == len(set(told))
    assert [key for key in told if key not in keys] == []


def test_record_lists_what_survived(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.json")
    run = Campaign(200, 1, store=store)
    order = run.orders["hdl/mem.py"]
    for site, verdict in zip(order, [KILLED, SURVIVED], strict=False):
        store.put(f"{site.id}@{run.target}", vars(_result(site, verdict, run.target)))
    record = report.record(run, "command", 1, ("2026-01-01", "abc"))
    assert record.figures["noticed"] == "50.0%"
    assert order[1].id in record.open[0] and "198 mutants" in record.open[-1]
    assert order[1].kind in report.table(run.results())


def test_share_within_reach(tmp_path: Path) -> None:
    """What was not tried yet may still be noticed; survivors stay; those that are explained are none."""
    store = Store(tmp_path / "results.json")
    run = Campaign(200, 1, store=store)
    assert report.within_reach(run) == 1
    order = run.orders["hdl/mem.py"]
    for site, verdict in zip(order, [KILLED, SURVIVED], strict=False):
        store.put(f"{site.id}@{run.target}", vars(_result(site, verdict, run.target)))
    assert report.within_reach(run) == 199 / 200
    for path, quota in run.quotas.items():
        for i, site in enumerate(run.orders[path][:quota]):
            store.put(f"{site.id}@{run.target}", vars(_result(site, SURVIVED if i == 0 else KILLED, run.target)))
    assert report.untried(run, run.results()) == 0
    assert report.within_reach(run) == report.share(run.results()) < 0.95


def test_scratch_copy(tmp_path: Path) -> None:
    """It is the sources; a mutant is gone when its turn is over, whatever happens."""
    copy = Tree(tmp_path / "tree")
    copy.refresh()
    (copy.path / "hdl" / "old.py").write_text("")
    copy.refresh()
    assert not (copy.path / "hdl" / "old.py").exists()
    file = copy.path / "hdl" / "mem.py"
    with pytest.raises(ZeroDivisionError), copy.mutated("hdl/mem.py", b"x"):
        assert file.read_bytes() == b"x"
        raise ZeroDivisionError
    assert file.read_bytes() == (ROOT / "hdl" / "mem.py").read_bytes()


def test_one_is_noticed_one_is_none_and_one_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: dict[str, list[Site]]
) -> None:
    """The whole way, with a plan of a single test."""
    path = "hdl/primitives.py"
    plan = target.Plan(path, ("topk",), (target.tests("vxm", "test_pieces and 20"),))
    copy = Tree(tmp_path / "tree")
    copy.refresh()
    with (copy.path / "verification" / "mutation" / "target.py").open("a") as file:
        file.write(f"\nPLANS = (Plan{(plan.pattern, plan.designs, plan.steps)!r},)\n")
    monkeypatch.setattr(target, "PLANS", (plan,))
    run = Judge(Campaign(200, 1, store=Store(tmp_path / "results.json")), copy, 60)

    def judge(name: str, old: str, new: str) -> Result:
        found = [s for s in places[path] if (s.name, s.old, s.new) == (name, old.encode(), new.encode())]
        return run.judge(found[-1])

    noticed = judge("less", "a - b", "(b - a)")
    assert (noticed.verdict, "test_pieces" in noticed.by) == (KILLED, True)
    assert judge("round_sat", "len(x) < bits", "(len(x) <= bits)").verdict == SAME  # the top-k unit does not round
    broken = judge("saturate", "bits - 1", "(1 - bits)")
    assert (broken.verdict, "non-negative" in broken.by) == (BUILT, True)


def test_a_target_that_fails_by_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Judge(Campaign(200, 1, store=Store(tmp_path / "results.json")), Tree(tmp_path))
    failed = [{"step": "elaboration", "seconds": 1, "fingerprint": "f"}, {"step": "a", "seconds": 2, "failed": "b"}]
    monkeypatch.setattr(Judge, "_run", lambda *_: (failed, 2.0, 2.0))
    with pytest.raises(BrokenTarget, match=r"hdl/mem\.py: the unchanged tree fails"):
        run.baseline("hdl/mem.py")


def test_a_step_of_the_unchanged_tree_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one plan has run and seen pass, the next leaves out; its time is known all the same."""
    run = Judge(Campaign(200, 1, store=Store(tmp_path / "results.json")), Tree(tmp_path))
    asked: list[tuple[str, ...]] = []

    def worker(self: Judge, path: str, before: str, limit: float, *known: str) -> object:
        asked.append(known)
        steps = [" ".join(step) for step in target.plan(path).steps]
        ran = ["elaboration", *(step for step in steps if step not in known), "end"]
        return [{"step": step, "seconds": float(i)} for i, step in enumerate(ran, 1)], 5.0, 5.0

    monkeypatch.setattr(Judge, "_run", worker)
    run.baseline("hdl/core.py")
    found = run.baseline("hdl/vxm/vxm.py")
    core = {" ".join(step) for step in target.CORE}
    assert asked[0] == () and set(asked[1]) == core
    assert {" ".join(step) for step in target.plan("hdl/vxm/vxm.py").steps} <= set(found["steps"])
    run.baseline("hdl/core.py")
    assert len(asked) == 2


def test_two_at_a_time_are_of_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mutant of the sample is tried once; what comes next in a file depends on what came out before."""
    run = Campaign(40, 1, store=Store(tmp_path / "results.json"))
    at_work: list[str] = []
    most = 0

    def judge(self: Judge, site: Site) -> Result:
        nonlocal most
        assert site.path not in at_work
        at_work.append(site.path)
        most = max(most, len(at_work))
        time.sleep(0.01)
        at_work.remove(site.path)
        return _result(site, SAME if site.id in same else KILLED, run.target)

    same = {order[0].id for order in run.orders.values()}
    monkeypatch.setattr(Judge, "judge", judge)
    monkeypatch.setattr(Tree, "refresh", lambda self: None)
    told: list[str] = []
    judges = [Judge(run, copy) for copy in (Tree(tmp_path / "a"), Tree(tmp_path / "b"))]
    Team(run, judges, time.monotonic() + 600, False, lambda site, _: told.append(site.id), told.append).work()
    assert most == 2
    assert len(told) == len(set(told)) == len(run.results())
    assert sum(r.verdict == KILLED for _, r in run.results()) == sum(run.quotas.values())


def test_one_that_fails_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off then has no result, and nothing of it goes on."""
    run = Campaign(200, 1, store=Store(tmp_path / "results.json"))
    judges = [Judge(run, copy) for copy in (Tree(tmp_path / "a"), Tree(tmp_path / "b"))]
    for judge in judges:
        judge.tree.path.mkdir()
    started = threading.Event()

    def baseline(self: Judge, path: str) -> dict[str, object]:
        if self is judges[0]:
            assert started.wait(30)
            raise BrokenTarget("broken")
        started.set()
        script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
        with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
            self._wait(process, time.monotonic() + 60)
            assert process.returncode == -signal.SIGKILL
        raise Stopped

    monkeypatch.setattr(Judge, "baseline", baseline)
    monkeypatch.setattr(Tree, "refresh", lambda self: None)
    with pytest.raises(BrokenTarget, match="broken"):
        Team(run, judges, time.monotonic() + 600, True, lambda *_: None, lambda _: None).work()
    assert run.results() == []


def test_list_names_the_whole_sample() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "verification.mutation", "--list", "--count", "210"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) >= 211


def test_results_survive_a_stop(tmp_path: Path) -> None:
    """The file is whole after every result."""
    store = Store(tmp_path / "a" / "results.json")
    store.put("x", 1)
    store.put("y", {"z": 2})
    assert json.loads(store.path.read_text()) == {"x": 1, "y": {"z": 2}}
