"""Tests the tests: ``python -m verification.mutation --minutes N --seed S --count 200 [--only ID] [--list]``."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import time

import click

from verification.evidence import begin, write

from . import kept, report, tree
from .campaign import Campaign, Store
from .judge import LIMIT, BrokenTarget, Judge
from .result import NOTICED, SAME, Result
from .site import Site
from .team import Team


@click.command()
@click.option("--count", default=200, show_default=True, help="Mutants.")
@click.option("--seed", default=1, show_default=True, help="Of the choice.")
@click.option("--minutes", default=30.0, show_default=True, help="Stop after this time; the next run goes on.")
@click.option("--limit", default=float(LIMIT), show_default=True, help="Seconds for one mutant.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Mutants at a time.")
@click.option("--only", multiple=True, metavar="ID", help="Try these again, whatever is known.")
@click.option("--file", "files", multiple=True, metavar="PATH", help="Try mutants of these files only.")
@click.option("--list", "listed", is_flag=True, help="Show the sample and what is known of it.")
@click.option("--baseline/--no-baseline", default=True, help="Run each plan on the unchanged tree first.")
@click.option("--trust", is_flag=True, help="Results stand although tests changed since.")
@click.option("--retry", is_flag=True, help="Try again what survived or ran out of time.")
@click.option("--keep", is_flag=True, help="Keep the results of the sample beside the sources (kept.jsonl).")
@click.option("--fail-under", default=0.0, help="Exit code 1 where this share noticed, in per cent, is out of reach.")
def main(
    count: int, seed: int, minutes: float, limit: float, jobs: int, only: tuple[str, ...], files: tuple[str, ...],
    listed: bool, baseline: bool, trust: bool, retry: bool, keep: bool, fail_under: float,
) -> None:
    """Put mistakes into hdl/ and sim/numerics.py, one at a time, and see whether the tests notice."""
    # Both end it after what is known has been kept; in the background only one of them arrives.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, started = begin(), time.monotonic()
    campaign = Campaign(count, seed, trust=trust, retry=retry)
    if listed:
        _list(campaign)
        return
    only_one = contextlib.ExitStack()
    try:
        only_one.enter_context(tree.locked())
        judges = [Judge(campaign, copy, limit) for copy in tree.trees(jobs)]
        if only:
            _only(campaign, judges[0], only)
            return
        until = started + 60 * minutes
        Team(campaign, judges, until, baseline, lambda *of: _told(campaign, count, *of), click.echo).work(files)
    except KeyboardInterrupt:
        click.echo("stopped; the next run goes on from here")
    except BlockingIOError:
        raise click.ClickException("another run is at work in build/mutation") from None
    except BrokenTarget as error:
        raise click.ClickException(str(error)) from None
    pairs = campaign.results()
    click.echo(report.table(pairs))
    for site, result in report.survivors(pairs):
        equal = " (equivalent)" if report.is_equivalent(site) else ""
        click.echo(f"\n{result.verdict}{equal}: {site.diff(campaign.sources[site.path])}")
    if keep:
        kept.write(result for _, result in pairs)
    command = f"python -m verification.mutation --count {count} --seed {seed} --minutes {minutes:g}"
    written = write(report.record(campaign, command, seed, begun))
    click.echo(f"\n{report.share(pairs):.1%} of {len(report.counted(pairs))} mutants noticed; {written}")
    if 100 * report.within_reach(campaign) < fail_under:
        sys.exit(1)


def _only(campaign: Campaign, judge: Judge, names: tuple[str, ...]) -> None:
    judge.tree.refresh()
    for name in names:
        if name not in campaign.by_id:
            raise click.ClickException(f"no mutant {name}")
        site = campaign.by_id[name]
        click.echo(site.diff(campaign.sources[site.path]))
        result = judge.judge(site)
        campaign.keep(result)
        click.echo(_line(result))


def _told(campaign: Campaign, count: int, site: Site, result: Result) -> None:
    known = campaign.results()
    real = sum(r.verdict != SAME for _, r in known)
    click.echo(f"[{real}/{count} {report.share(known):.1%}] {site.id:24} {site.kind:10} {_line(result)}")
    if result.verdict not in (*NOTICED, SAME):
        click.echo(site.diff(campaign.sources[site.path]))


def _line(result: Result) -> str:
    return f"{result.verdict} ({result.seconds:.0f} s) {result.by[:110]}"


def _list(campaign: Campaign) -> None:
    store = Store()
    click.echo(f"{sum(map(len, campaign.sites.values()))} places; {len(store.data)} entries in {store.path}")
    for path, quota in campaign.quotas.items():
        done, _ = campaign.chosen(path)
        known = {s.id: r for s, r in done}
        more = itertools.islice((s for s in campaign.orders[path] if s.id not in known),
                                max(0, quota - sum(r.verdict != SAME for r in known.values())))  # fmt: skip
        for site in [*(s for s, _ in done), *more]:
            click.echo(f"{site.id:24} {site.kind:10} {_verdict(site, known)}")


def _verdict(site: Site, known: dict[str, Result]) -> str:
    return _line(known[site.id]) if site.id in known else "-"


if __name__ == "__main__":
    main()
