"""Documents: generated pages are fresh, links lead somewhere, every source file says what it is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from verification.evidence import document

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "verification").glob("*.md")])


@pytest.fixture
def files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("files", ROOT / "docs" / "files.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_page_is_fresh(files: ModuleType) -> None:
    assert files.TARGET.read_text() == files.document(), "stale: run python docs/files.py"


def test_results_are_those_of_the_kept_records() -> None:
    page = document.PAGE.read_text(encoding="utf-8")
    assert page == document.rewritten(page), "stale: run python -m verification.evidence"


def test_every_file_says_what_it_is(files: ModuleType) -> None:
    silent = [p for folder in files.FOLDERS for p in files.sources(folder) if not files.first_sentence(p)]
    assert not silent


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing
