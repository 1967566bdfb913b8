"""Formal proofs: each holds, each finds its seeded bugs, and the page lists them as the registry does."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Module

from hdl.host.skid import SkidBuffer
from verification.formal import __main__ as formal
from verification.formal import document, report
from verification.formal.harness import SIZES, Harness
from verification.formal.mutate import Mutant, MutantError, seeded
from verification.formal.proof import Proof
from verification.formal.proofs import PROOFS, get
from verification.formal.runner import ProofFailure, check, run, run_mutant

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formal.md"


def _marks(proof: Proof) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if proof.slow else []


@pytest.mark.parametrize("proof", [pytest.param(p, id=p.name, marks=_marks(p)) for p in PROOFS])
def test_proof(proof: Proof) -> None:
    """It holds, and all that it covers is reached."""
    run(proof)


@pytest.mark.parametrize(
    ("proof", "index"),
    [
        # One bug of each proof in `make test`, the others in `make regress`.
        pytest.param(p, i, id=f"{p.name}-{i}", marks=[pytest.mark.slow] if i else _marks(p))
        for p in PROOFS
        for i in range(len(p.mutants))
    ],
)
def test_finds_bug(proof: Proof, index: int) -> None:
    """A bug in the HDL makes it fail."""
    run_mutant(proof, index)


def test_names() -> None:
    """Unique, and configs exist."""
    assert len({p.name for p in PROOFS}) == len(PROOFS)
    assert {p.config for p in PROOFS} <= {"-", *SIZES}
    with pytest.raises(KeyError, match="unknown proof 'nothing'; known: mac_packing"):
        get("nothing")


def test_page_is_fresh() -> None:
    """The table of proofs is that of the registry."""
    assert document.table() in PAGE.read_text(), "stale: run python -m verification.formal --document"


class _Wrong(Harness):
    """Asserts something false, and covers something impossible."""

    def build(self, m: Module) -> None:
        x = self.free("x", 4)
        self.holds(x != 11)
        self.reached(x != x)


def _proof(**changes: object) -> Proof:
    bug = Mutant("hdl.host.skid", "waiting.eq(1)", "waiting.eq(0)")
    fields = {"name": "selftest", "mode": "bmc", "depth": 2, "mutants": (bug,)}
    return Proof(factory=_Wrong, config="-", proves="nothing", assumes="", **(fields | changes))  # type: ignore


def test_failure_is_shown() -> None:
    """A failure names the property's line, a trace and the command that repeats it."""
    with pytest.raises(ProofFailure) as failure:
        run(_proof())
    text = str(failure.value)
    trace = next(line for line in text.splitlines() if line.startswith("trace: ")).removeprefix("trace: ")
    assert "violated: " in text and "test_formal.py:" in text and text.endswith("-m verification.formal selftest")
    assert "var wire" in Path(trace).read_text()


def test_unreached_cover_is_a_failure() -> None:
    """Assumptions that leave nothing over do not pass for a proof."""
    outcome = check(_proof(), "cover", 3)
    assert outcome.status == "FAIL"
    assert [place.split("/")[-1].split(":")[0] for place in outcome.failed] == ["test_formal.py"]


def test_blind_proof_is_a_failure() -> None:
    """A seeded bug that changes nothing is said."""

    class Blind(Harness):
        def build(self, m: Module) -> None:
            m.submodules.unit = SkidBuffer(1)
            self.holds(1)

    blind = Proof("selftest_blind", Blind, config="-", proves="", assumes="", mode="bmc", depth=2,
                  mutants=_proof().mutants)  # fmt: skip
    with pytest.raises(ProofFailure, match=r"blind \(PASS\): it does not notice 'waiting.eq\(0\)'"):
        run_mutant(blind, 0)


def test_mutants_are_checked() -> None:
    """A text that is not there, or in no function, is an error; the real code is back afterwards."""
    code = SkidBuffer.elaborate.__code__
    with seeded(Mutant("hdl.host.skid", "waiting.eq(1)", "waiting.eq(0)")):
        assert SkidBuffer.elaborate.__code__ != code
    assert SkidBuffer.elaborate.__code__ is code
    with pytest.raises(MutantError, match="0 times"), seeded(Mutant("hdl.host.skid", "no such text", "")):
        pass
    constant = Mutant("hdl.link", "PAYLOAD_MAX = 512", "PAYLOAD_MAX = 256")
    with pytest.raises(MutantError, match="in no function"), seeded(constant):
        pass


def test_proof_is_checked() -> None:
    """A mode that does not exist, a proof without a seeded bug."""
    with pytest.raises(ValueError, match="mode 'live' is neither bmc nor prove"):
        _proof(mode="live")
    with pytest.raises(ValueError, match="without a seeded bug"):
        _proof(mutants=())


def test_a_run_leaves_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds, what fails and why, and which bugs were not noticed; how far the bounded ones go."""
    proofs = [_proof(name="good"), _proof(name="bad"), _proof(name="blind", mode="prove", depth=3)]

    def run_one(proof: Proof) -> float:
        if proof.name == "bad":
            raise ProofFailure("proof bad failed\n  violated: here")
        return 2.0

    def seek(proof: Proof, index: int) -> float:
        if proof.name == "blind":
            raise ProofFailure("blind")
        return 1.0

    monkeypatch.setattr(formal, "run", run_one)
    monkeypatch.setattr(formal, "run_mutant", seek)
    tally = report.Tally()
    formal._try(proofs, True, tally)
    proofs.append(_proof(name="late"))
    record = report.record(proofs, tally, "command", ("2026-01-01", "abc"), 5)
    assert record.figures == {
        "proofs": 4, "hold": 2, "of these, bounded": 1, "of these, unbounded": 1,
        "seeded bugs found": "1 of 2 tried, 4 in all", "longest": "good, 2 s",
    }  # fmt: skip
    assert record.open[0] == "`bad`: proof bad failed"
    assert record.open[1:3] == ("`late` was not run.", "`blind` does not notice a bug that was put in.")
    assert record.open[3].startswith("`good` is bounded: ") and record.open[4] == report.HOLES
    assert report.record(proofs, report.Tally(), "", ("", ""), 0).figures["seeded bugs found"] == "not tried (4)"
