"""`seqdens plugins`: the installed packages that add to seqdens, and whether what they add works."""

from __future__ import annotations

import time

import click

from seqdens import native
from seqdens.cli import aligned, load_command
from seqdens.components import check_class, experiment, registry
from seqdens.errors import DataError, SeqdensError, UsageError
from seqdens.plugins import GROUPS, find, load_listener
from seqdens.registry import Component, Provider, one_line


@click.command()
@click.option("--check", is_flag=True, help="Import and build everything, with times; exit status 1 if anything fails.")
@click.pass_context
def plugins(context: click.Context, check: bool) -> None:
    """List the installed packages that add to seqdens, or check them; and say what is fast on this machine."""
    found = [find(group) for group in GROUPS]
    providers = [provider for some, _ in found for provider in some]
    failures = list(dict.fromkeys(failure for _, some in found for failure in some))
    for owner in sorted({provider.owner for provider in providers}):
        rows = [[provider.kind, provider.name] for provider in providers if provider.owner == owner]
        if check:
            import torch  # noqa: F401, so that no package's time is that of torch

            outcomes = [attempt(provider) for provider in providers if provider.owner == owner]
            failures += [failure for _, failure in outcomes if failure]
            rows = [
                [*row, took, "failed" if failure else "ok"] for row, (took, failure) in zip(rows, outcomes, strict=True)
            ]
        click.echo(f"{owner}\n{aligned(rows, '  ')}")
    if not providers:
        click.echo("No installed package adds to seqdens.")
    click.echo(f"This machine: {native.describe()}")
    for failure in failures:
        click.echo(f"Warning: {failure}", err=True)
    context.exit(1 if check and failures else 0)


def attempt(provider: Provider) -> tuple[str, str]:
    """How long `provider` took to load, and why it failed, if it did."""
    start = time.perf_counter()
    try:
        load(provider)
        failure = ""
    except SeqdensError as error:
        failure = str(error)
    except Exception as error:
        failure = f"{provider.name!r} of {provider.kind} ({provider.owner}) fails: {one_line(error)}"
    return f"{time.perf_counter() - start:.2f} s", failure


def load(provider: Provider) -> None:
    """Import `provider` as its use would, check its options, build it with them; raises `SeqdensError`."""
    if provider.kind == "hooks":
        load_listener(provider)
    elif provider.kind == "commands":
        load_command(provider.name)
    elif provider.kind == "experiments":
        resolve_all(provider.name)
    else:
        check_class(registry(provider.kind).provider(provider.name))
        build(registry(provider.kind).component(provider.name, {}))


def resolve_all(name: str) -> None:
    """Find what the experiment `name` and its presets declare; raises `SeqdensError` naming preset and package."""
    from seqdens.configuration import resolve  # imports msgspec

    declared = experiment(name)
    for preset in (None, *declared.presets):
        try:
            resolve(declared, preset=preset)
        except SeqdensError as error:
            owner = registry("experiments").provider(name).owner
            recipe = f" with preset {preset!r}" if preset else ""
            raise SeqdensError(f"{name!r} of experiments ({owner}) cannot be run{recipe}: {error}") from error


def build(component: Component) -> None:
    """Construct `component` with its defaults; what it refuses in words (no folder, such columns) is no failure."""
    from seqdens.datasets.base import STROKE_END, X, Y  # imports numpy

    wired = {"datasets": (None,), "encoders": (3, 0), "heads": (4, (X, Y, STROKE_END))}
    if component.kind not in wired:
        return
    try:
        component.build(*wired[component.kind])
    except SeqdensError as error:
        if not isinstance(error, UsageError | DataError):
            raise
