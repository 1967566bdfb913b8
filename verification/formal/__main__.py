"""Runs proofs by name, or all: ``python -m verification.formal [NAME ...] [--mutants] [--list] [--document]``."""

from __future__ import annotations

import argparse
import sys

from sim.tools import ToolError

from . import document
from .proofs import PROOFS, get
from .runner import ProofFailure, run, run_mutant


def main() -> int:
    """Exit code 1 when a proof fails or does not notice a seeded bug."""
    parser = argparse.ArgumentParser(prog="python -m verification.formal", description="Formal proofs of the HDL.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="proofs to run (default: all)")
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
    bad = 0
    for proof in proofs:
        if options.list:
            print(f"{proof.name}: {proof.proves} [{proof.mode} {proof.depth}, {proof.config}]")
            continue
        try:
            print(f"{proof.name}: {proof.mode} {proof.depth} holds ({run(proof):.1f} s)", flush=True)
            for i, mutant in enumerate(proof.mutants if options.mutants else ()):
                seconds = run_mutant(proof, i)
                print(f"{proof.name}: finds {mutant.new!r} for {mutant.old!r} ({seconds:.1f} s)", flush=True)
        except (ProofFailure, ToolError) as error:
            print(error, flush=True)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
