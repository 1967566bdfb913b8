"""The long run's driver, and the records that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from verification import regress
from verification.evidence import Record, document, record, write
from verification.regress import Part, budgets, run_part

RECORD = Record(
    part="p", title="A part", command="python -m p", config="tiny", seeds="1 to 3", evidence="RTL simulation",
    figures={"tokens": 12345, "share": 0.98765, "what": "text"}, open=("one thing, because",), date="2026-01-02",
    commit="abc", seconds=7,
)  # fmt: skip


def test_time_is_shared_out() -> None:
    parts = [Part("a", "", 1, ()), Part("b", "", 3, ()), Part("c", "", 0, ())]
    assert budgets(parts, 10, 2) == {"a": 5, "b": 15, "c": 10}


@pytest.mark.parametrize(("code", "text"), [(0, "passed"), (3, "FAILED (code 3)")])
def test_a_part_and_its_outcome(
    code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts get seed and time; one that fails is shown, and makes the whole fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part_of_test.py").write_text("import sys; print(sys.argv[1:]); sys.exit(int(sys.argv[1]))\n")
    monkeypatch.setattr(regress, "ROOT", tmp_path)
    part = Part("x", "an example", 1, ("part_of_test", str(code), "--seed={seed}", "--minutes={minutes}"))
    outcome = run_part(part, 9, 2.5, tmp_path / "build")
    assert outcome.code == code
    assert outcome.log.read_text() == f"['{code}', '--seed=9', '--minutes=2.50']\n"
    monkeypatch.setattr(regress, "PARTS", (part,))
    monkeypatch.setattr(regress.run_part, "__defaults__", (tmp_path / "build",))
    result = CliRunner().invoke(regress.main, ["--seed", "9", "--minutes", "2.5"])
    assert result.exit_code == (code != 0)
    assert "seed 9; again: python -m verification.regress --minutes 2.5 --seed 9" in result.output
    assert "x" in result.output and text.split()[0] in result.output


def test_records_are_kept_and_shown(tmp_path: Path) -> None:
    path = write(RECORD, tmp_path)
    assert record.read(path) == RECORD
    text = document.section(RECORD)
    for part in ("`python -m p` · 2026-01-02, commit abc · config tiny · seeds 1 to 3 · 7 s [RTL simulation]",
                 "| tokens | 12,345 |", "| share | 0.9877 |", "- one thing, because"):  # fmt: skip
        assert part in text
    path.write_text('{"part": 1}')
    with pytest.raises(ValueError, match=r"p\.json: not the record"):
        record.read(path)
    with pytest.raises(ValueError, match="marks"):
        document.rewritten("no marks")
