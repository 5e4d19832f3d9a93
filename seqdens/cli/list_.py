"""`seqdens list`: the names that exist and who provides them."""

from __future__ import annotations

import click

from seqdens.builtin import KINDS
from seqdens.cli import aligned
from seqdens.components import registry


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False, metavar="[KIND]")
def list_(kind: str | None) -> None:
    """List what exists and who provides it.

    KIND is datasets, encoders, heads, regularisers, experiments or commands; without it all are listed.
    """
    failures = []
    for each in [kind] if kind else KINDS:
        components = registry(each)
        failures += components.failures
        names = [provider.name for provider in components.providers()]
        rows = [
            (provider.name, provider.owner, "provided twice, cannot be used" if names.count(provider.name) > 1 else "")
            for provider in components.providers()
        ]
        if kind:
            click.echo(aligned(rows) or f"No {kind} are installed.")
        else:
            click.echo(f"{each}\n{aligned(rows, '  ') or '  (none)'}")
    for failure in dict.fromkeys(failures):
        click.echo(f"Warning: {failure}", err=True)
