"""`seqdens prepare`: build or refresh the cache of a data set."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seqdens.errors import UsageError, printable

if TYPE_CHECKING:
    from seqdens.cache import Prepared
    from seqdens.shards import Shard

MENTIONED = 5  # skipped files named on the screen

Function = TypeVar("Function", bound=Callable[..., Any])


def place_options(command: Function) -> Function:
    """Adds --data, --set OPTION=VALUE and --cache, as `data`, `settings` and `cache`."""
    for option in (
        click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder for prepared data sets."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="OPTION=VALUE",
            help="An option of the data set; may be repeated.",
        ),
        click.option("--data", type=click.Path(path_type=Path), metavar="PATH", help="Folder or file of the data set."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("dataset")
@place_options
@click.option("--workers", type=click.IntRange(1), help="Processes that read; default: one a core.")
@click.option("--strict", is_flag=True, help="Fail where any file cannot be read, naming the first.")
@click.option("--rebuild", is_flag=True, help="Build it anew, whatever is there.")
@click.option("--shard", metavar="I/N", help="Only part I of N; run and all else open the N parts as one.")
@click.option("--verify", is_flag=True, help="Compare the files' contents, not only names and sizes.")
def prepare(
    dataset: str,
    data: Path | None,
    settings: tuple[str, ...],
    cache: Path | None,
    workers: int | None,
    strict: bool,
    rebuild: bool,
    shard: str | None,
    verify: bool,
) -> None:
    """Build or refresh the prepared form of DATASET.

    `seqdens list datasets` names them; `seqdens show DATASET` gives the options of one.
    """
    from seqdens.components import dataset as component
    from seqdens.shards import Shard

    part = None if shard is None else Shard.parse(shard)
    options = parse_options(settings)
    root = options.pop("root", None)
    prepared = prepare_with_display(
        component(dataset, **options),
        data or root,
        folder=cache,
        workers=workers,
        rebuild=rebuild,
        verify=verify,
        shard=part,
        strict=strict,
    )
    more = f" and {len(prepared.paths) - 1} more" if len(prepared.paths) > 1 else ""
    click.echo(f"Prepared at {prepared.path}{more}")
    if part and prepared.provenance.shard:
        click.echo(progress_of(part, prepared.path))


def progress_of(shard: Shard, path: Path) -> str:
    """A line: which of the shards beside this one are still to be prepared."""
    left = shard.missing_beside(path)
    names = ", ".join(map(str, left))
    if left:
        return f"Still to be prepared: {names}"
    return f"All {shard.total} shards have a file; they are opened as one if each is up to date."


def parse_options(settings: tuple[str, ...]) -> dict[str, Any]:
    """A data set's options from `OPTION=VALUE`, `root` a path; raises `UsageError` for what reads otherwise."""
    from seqdens.configuration import parse_setting

    if wrong := [text for text in settings if "=" not in text]:
        raise UsageError(f"setting {wrong[0]!r} must read OPTION=VALUE.")
    parsed = [parse_setting(f"dataset.{text.removeprefix('dataset.')}") for text in settings]
    options = {option: value for _, option, value in parsed}
    if "name" in options:
        raise UsageError("the data set's name is the argument DATASET, not a setting.")
    return options | ({"root": Path(str(options["root"]))} if "root" in options else {})


def prepare_with_display(
    component: Any, root: Path | None, *, strict: bool = False, stderr: bool = False, **settings: Any
) -> Prepared:
    """`seqdens.prepare.prepare` with progress, and a summary of what is there and what was skipped."""
    from rich.console import Console

    from seqdens.cli.display import counting
    from seqdens.prepare import MAX_SKIPPED, prepare

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    with counting(console, f"Preparing {component.name}") as progress:
        prepared = prepare(
            component,
            root,
            progress=progress,
            note=lambda line: console.print(f"Note: {printable(line)}", markup=False),
            max_skipped=0.0 if strict else MAX_SKIPPED,
            **settings,
        )
    summarise(prepared, stderr)
    return prepared


def summarise(prepared: Prepared, stderr: bool = False) -> None:
    """Print what is in a prepared data set, and what is not and why."""
    from seqdens.datasets.base import SPLITS

    about = prepared.provenance
    name = printable(about.dataset) + (" (synthetic)" if about.synthetic else "")
    counts = ", ".join(f"{len(prepared.split(split)):,} {split}" for split in SPLITS)
    name += f", shard {about.shard}" if about.shard else ""
    skipped = prepared.skipped_count
    skips = f", {skipped:,} skipped" if skipped else ""
    points = f"{prepared.points:,} points"
    click.echo(f"{name}: {len(prepared):,} {printable(about.record_name)}s ({counts}), {points}{skips}", err=stderr)
    for each in islice(prepared.skipped_items(), MENTIONED):
        click.echo(printable(f"  skipped {each.path}: {each.reason}"), err=stderr)
    if skipped > MENTIONED:
        click.echo(f"  ... and {skipped - MENTIONED} more, listed in {prepared.path}", err=stderr)
