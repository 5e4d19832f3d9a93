"""`seqdens styles`: recorded hands that a model can write in."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

import click

from seqdens.cli import aligned
from seqdens.cli.prepare import parse_options, place_options


@click.group(invoke_without_command=True)
@click.pass_context
def styles(context: click.Context) -> None:
    """List the saved styles, lines of a hand for a model to write in; add, show and remove them."""
    from seqdens.errors import SeqdensError, printable
    from seqdens.styles import load_style, style_names, styles_folder

    if context.invoked_subcommand:
        return
    rows = []
    for name in style_names():
        try:
            style = load_style(name)
        except SeqdensError as error:
            click.echo(f"Warning: {error}", err=True)
        else:
            source, text = printable(style.source), printable(shorten(style.text, 60))
            rows.append((name, f"{len(style.points):,} points", source, text))
    click.echo(aligned(rows) if rows else f"No styles in {styles_folder()}; `seqdens styles add` saves one.")


@styles.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="SOURCE",
    help="DATASET:ID of a prepared data set, or a file: .style, .npz, .csv, .json (of `seqdens sample`), .svg, .inkml.",
)
@click.option("--text", help="What is written there; default: what the source says.")
@click.option("--units", metavar="DATASET", help="The data set in whose units a file is, which is not scaled then.")
@click.option("--replace", is_flag=True, help="Replace a style of that name.")
@place_options
def add(
    name: str,
    source: str,
    text: str | None,
    units: str | None,
    replace: bool,
    data: Path | None,
    settings: tuple[str, ...],
    cache: Path | None,
) -> None:
    """Save the line SOURCE as the style NAME."""
    from seqdens.styles import add_style, load_style

    options = {"root": data, "cache": cache} | parse_options(settings)
    style = load_style(source, text, units=units, **options)
    path = add_style(name, style, replace)
    click.echo(f"{path}: points {len(style.points):,}, text {style.text!r}")


@styles.command()
@click.argument("name")
@click.option("--text", help="What is written there; default: what the source says.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="As this run folder's or weights file's model would read it.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to; default: NAME.png.")
def show(name: str, text: str | None, model: Path | None, out: Path | None) -> None:
    """Draw the style NAME, or a file that could be one, as .svg, .png or .gif."""
    from seqdens.export import save_records
    from seqdens.model import SequenceModel
    from seqdens.styles import load_style

    style = load_style(name, text, like=SequenceModel.load(model) if model else None)
    out = out or Path(f"{Path(name).stem}.png")
    save_records([style.points], out, captions=[style.text], title=style.source)
    click.echo(f"{out}: points {len(style.points):,}, text {style.text!r}")


@styles.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the style NAME."""
    from seqdens.styles import remove_style

    remove_style(name)
    click.echo(f"removed {name}")
