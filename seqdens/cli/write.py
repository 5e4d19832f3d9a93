"""`seqdens write`: from a text to pages of handwriting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqdens.cli.prepare import Function
from seqdens.errors import DataError, UsageError

if TYPE_CHECKING:
    from seqdens.pages.layout import Layout
    from seqdens.styles import Style


def grouped(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, in the order in which the help has them."""

    def add(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return add


page_options = grouped(
    click.option(
        "--paper",
        default="A4",
        show_default=True,
        metavar="SIZE",
        help="A3, A4, A5, A6, letter, legal, or mm: 297x210.",
    ),
    click.option("--margin", type=float, default=20.0, show_default=True, metavar="MM", help="Free on each side."),
    click.option(
        "--line-height", type=float, default=10.0, show_default=True, metavar="MM", help="From baseline to baseline."
    ),
    click.option(
        "--align", type=click.Choice(["left", "centre", "right"]), default="left", show_default=True, help="Of lines."
    ),
    click.option("--width", type=float, metavar="MM", help="That a line may fill; default: all between the margins."),
)

pen_options = grouped(
    click.option(
        "--pen-width", type=float, default=0.4, show_default=True, metavar="MM", help="Of the pen's line in pictures."
    ),
    click.option(
        "--colour", default="#1b2a4a", show_default=True, metavar="COLOUR", help="A name such as navy, or #rrggbb."
    ),
    click.option("--variable", is_flag=True, help="Make the line thicker where the pen is slow."),
)

plotter_options = grouped(
    click.option(
        "--lift",
        type=click.Choice(["z", "servo"]),
        default="z",
        show_default=True,
        help="How a plotter lifts its pen: along Z, or by M5, and M3 puts it down.",
    ),
    click.option("--up", type=float, default=5.0, show_default=True, metavar="MM", help="Z of the lifted pen."),
    click.option("--down", type=float, default=0.0, show_default=True, metavar="MM", help="Z of the pen on paper."),
    click.option("--press", type=float, default=1000.0, show_default=True, metavar="S", help="S of a servo's M3."),
    click.option(
        "--dwell", type=float, default=0.2, show_default=True, metavar="SECONDS", help="That a servo is given to move."
    ),
    click.option(
        "--feed", type=float, default=1500.0, show_default=True, metavar="MM/MIN", help="A plotter's speed on paper."
    ),
    click.option(
        "--plunge", type=float, default=500.0, show_default=True, metavar="MM/MIN", help="Its speed down to the paper."
    ),
)


@click.command()
@click.argument("text", required=False)
@click.option("--from", "source", metavar="FILE", help="Write what is in FILE, in UTF-8; - is standard input.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="A run folder or a weights file, of experiment synthesis; default: the weights that come with seqdens.",
)
@click.option(
    "--bias",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="0 for as varied a hand as was learnt, above for a neater one.",
)
@click.option(
    "--style",
    metavar="STYLE",
    help="In whose hand: a name of `seqdens styles`, DATASET:ID, or a file .style, .svg, .inkml, .npz, .csv, .json.",
)
@click.option("--style-text", metavar="TEXT", help="What is written in --style; default: what it says itself.")
@click.option("--style-units", metavar="DATASET", help="The data set in whose units that file is.")
@click.option("--seed", type=click.IntRange(0), help="Of the draws; default: a new one each time.")
@click.option(
    "--tries",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How often a line is drawn, at most, that ran away or skipped a letter.",
)
@click.option("--characters", type=click.IntRange(1), metavar="N", help="Of a line, at most; default: what fits.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip", "replace"]),
    default="error",
    show_default=True,
    help="What is done with characters that the model does not know; replace writes what is most alike.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="Of the encoder's products: bf16 and int8 are faster, and a little less exact.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("page.svg"),
    show_default=True,
    metavar="FILE",
    help="Where to: .svg, .png, .pdf, .gif, .json, .npz, .gcode or .nc.",
)
@page_options
@pen_options
@plotter_options
def write(
    text: str | None,
    source: str | None,
    model: Path | None,
    style: str | None,
    style_text: str | None,
    style_units: str | None,
    characters: int | None,
    out: Path,
    pen_width: float,
    colour: str,
    variable: bool,
    **given: Any,
) -> None:
    """Write TEXT as handwriting, in lines and pages; - reads it from standard input."""
    from rich.console import Console

    from seqdens.cli.display import counting
    from seqdens.model import SequenceModel
    from seqdens.pages.files import check_suffix, save_sheets
    from seqdens.pages.gcode import Plotter
    from seqdens.pages.layout import Layout, lay_out
    from seqdens.pages.pen import Pen
    from seqdens.styles import load_style
    from seqdens.writing import check_writes, shipped, write

    check_suffix(out)
    layout = Layout(**_taken(given, "paper", "margin", "line_height", "align", "width"))
    pen = Pen(width=pen_width, colour=colour, variable=variable)
    plotter = Plotter(**_taken(given, "lift", "up", "down", "press", "dwell", "feed", "plunge"))
    text = read_text(text, source)
    loaded = SequenceModel.load(model) if model else shipped()
    check_writes(loaded)
    hand = load_style(style, style_text, like=loaded, units=style_units) if style else None
    if hand is None and (style_text or style_units):
        raise UsageError("--style-text and --style-units say what is in --style: give that too.")
    with counting(Console(stderr=True), "Writing") as progress:
        written = write(
            text, loaded, characters=characters or fitting(layout, hand), style=hand, progress=progress, **given
        )
    for number, line in written.bad:
        click.echo(f"Warning: line {number} {line.fault} in {line.draws} tries: {line.text!r}", err=True)
    points, texts = zip(*((line.points, line.text) for line in written.lines), strict=True)
    sheets = lay_out(points, texts, layout, smallest=0.0)  # small is better than lost
    paths = save_sheets(sheets, out, pen=pen, plotter=plotter)
    inked = [line for line in written.lines if line.text]
    named = f"{paths[0]} to {paths[-1]}" if len(paths) > 1 else str(out)
    counts = f"lines {len(inked):,}, points {sum(len(line.points) for line in inked):,}, seed {written.seed}"
    click.echo(f"{named}: {counts}{f', bad lines {len(written.bad)}' if written.bad else ''}")


def _taken(given: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the arguments, which they leave."""
    return {name: given.pop(name) for name in names}


def read_text(text: str | None, source: str | None) -> str:
    """The text that was given, or what is in a file; raises `UsageError` for none and for both."""
    if (text is None) == (source is None):
        raise UsageError('give a text, or --from FILE; one of the two: `seqdens write "hello there"`.')
    if text is not None and text != "-":
        return text
    place = source or "-"
    name = "standard input" if place == "-" else place
    try:
        with click.open_file(place, "rb") as file:
            return str(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is no text in UTF-8 (byte {error.start}); convert it.") from None
    except OSError as error:
        raise DataError(f"cannot read {name!r}: {error.strerror or error}.") from error


def fitting(layout: Layout, style: Style | None) -> int:
    """How many characters a line holds, if they are as wide as those of the style, where there is one."""
    from seqdens.pages.layout import advance

    return layout.characters(advance(style.points, style.text)) if style else layout.characters()
