"""Keeps the last runs' records and makes ``docs/verification.md`` of them.

    python -m verification.evidence PART ...  # keep these of build/regress/, rewrite the page
    python -m verification.evidence           # rewrite the page
"""

from __future__ import annotations

import click

from .document import PAGE, keep, rewritten


@click.command()
@click.argument("parts", nargs=-1)
def main(parts: tuple[str, ...]) -> None:
    """Keep the records of PARTS and rewrite docs/verification.md."""
    try:
        for path in keep(list(parts)) if parts else ():
            click.echo(f"kept {path.name}")
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
