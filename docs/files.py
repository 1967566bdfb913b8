"""Writes ``docs/files.md``: one line for each source file, its docstring's first sentence.

    python docs/files.py          # rewrite
    python docs/files.py --check  # exit code 1 when it is stale
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "files.md"
FOLDERS = ("hdl", "sim", "firmware", "fpga", "verification", "tests", "docs")
_COMMENT = {".v": "//", ".cpp": "//"}


def first_sentence(path: Path) -> str:
    """What a file says of itself: first sentence of its docstring or leading comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        doc = ast.get_docstring(ast.parse(text)) or ""
    else:
        mark = _COMMENT[path.suffix]
        lines = []
        for line in text.splitlines():
            if not line.startswith(mark):
                break
            lines.append(line.removeprefix(mark).strip())
        doc = " ".join(lines)
    paragraph = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]


def sources(folder: str) -> list[Path]:
    """Source files below a folder that git knows or would add, in order."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    paths = [ROOT / n for n in sorted(set(names)) if Path(n).suffix in (".py", *_COMMENT)]
    return [p for p in paths if p.exists()]


def document() -> str:
    """The whole page."""
    out = ["# Files", "", "Made by `python docs/files.py` from the files themselves; do not edit.", ""]
    for folder in FOLDERS:
        paths = sources(folder)
        if paths:
            out += [f"## {folder}/", "", "| file | what |", "|---|---|"]
            out += [f"| `{p.relative_to(ROOT)}` | {first_sentence(p)} |" for p in paths]
            out.append("")
    return "\n".join(out)


def main() -> int:
    """Rewrite or check; returns the exit code."""
    text = document()
    if "--check" in sys.argv[1:]:
        return int(not TARGET.exists() or TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
