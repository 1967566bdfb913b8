"""Runs proofs, all or by name: ``python -m verification.formal [NAME ...] [--fast] [--mutants] [--list]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from sim.tools import ToolError
from verification.evidence import begin, write

from . import document, report
from .proof import Proof
from .proofs import PROOFS, get
from .runner import ProofFailure, run, run_mutant


def main() -> int:
    """Exit code 1 when a proof fails or does not notice a seeded bug."""
    parser = argparse.ArgumentParser(prog="python -m verification.formal", description="Formal proofs of the HDL.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="proofs to run (default: all, with a record)")
    parser.add_argument("--fast", action="store_true", help="leave out those marked slow")
    parser.add_argument("--mutants", action="store_true", help="also show that every seeded bug is found")
    parser.add_argument("--list", action="store_true", help="list the proofs and what they prove")
    parser.add_argument("--document", action="store_true", help="rewrite the table in docs/formal.md")
    options = parser.parse_args()
    if options.document:
        document.rewrite()
        return 0
    try:
        proofs = [get(name) for name in options.names] or PROOFS
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    if options.list:
        for proof in proofs:
            print(f"{proof.name}: {proof.proves} [{proof.mode} {proof.depth}, {proof.config}]")
        return 0
    begun, started = begin(), time.monotonic()
    tally = report.Tally()
    _try([p for p in proofs if not (options.fast and p.slow)], options.mutants, tally)
    if not options.names:
        given = [name for name in ("fast", "mutants") if getattr(options, name)]
        command = " ".join(["python -m verification.formal", *(f"--{name}" for name in given)])
        path = write(report.record(proofs, tally, command, begun, round(time.monotonic() - started)))
        print(f"kept in {path}", flush=True)
    return int(bool(tally.failed or tally.blind))


def _try(proofs: Sequence[Proof], mutants: bool, tally: report.Tally) -> None:
    """Each proof, and with ``mutants`` its seeded bugs; says and tallies what comes of them."""
    for proof in proofs:
        try:
            tally.held[proof.name] = run(proof)
            print(f"{proof.name}: {proof.mode} {proof.depth} holds ({tally.held[proof.name]:.1f} s)", flush=True)
        except (ProofFailure, ToolError) as error:
            print(error, flush=True)
            tally.failed[proof.name] = str(error).splitlines()[0]
            continue
        for i, mutant in enumerate(proof.mutants if mutants else ()):
            tally.sought += 1
            try:
                seconds = run_mutant(proof, i)
                tally.found += 1
                print(f"{proof.name}: finds {mutant.new!r} for {mutant.old!r} ({seconds:.1f} s)", flush=True)
            except (ProofFailure, ToolError) as error:
                print(error, flush=True)
                tally.blind.append(proof.name)


if __name__ == "__main__":
    sys.exit(main())
