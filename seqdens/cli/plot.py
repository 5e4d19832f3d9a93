"""`seqdens plot`: what a trained model predicts along a record, and how its loss fell."""

from __future__ import annotations

import csv
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from seqdens.cli.prepare import Function
from seqdens.cli.run_data import data_for, data_options
from seqdens.errors import DataError, UsageError, printable
from seqdens.registry import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from seqdens.cache import Prepared
    from seqdens.model import SequenceModel


@click.group()
def plot() -> None:
    """Plot a model's predictions along a record, or a run's losses."""


def out_option(default: str, more: str = "") -> Callable[[Function], Function]:
    """Adds --out, as `out`."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path(default) if default else None,
        show_default=bool(default),
        metavar="FILE",
        help=f"Where to: .png, .svg or .pdf{more}.",
    )


def record_options(command: Function) -> Function:
    """Adds the argument MODEL and the options that choose a record of which data, as arguments of `plot_along`."""
    for add in (
        click.option(
            "--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
        ),
        data_options,
        click.option("--steps", type=click.IntRange(1), metavar="N", help="Only the first N points of the record."),
        click.option(
            "--split",
            type=click.Choice(["train", "valid", "test"]),
            default="valid",
            show_default=True,
            help="The split whose first record is taken.",
        ),
        click.option("--record", metavar="ID", help="The record of that name, of any split."),
        click.argument("model", type=click.Path(path_type=Path)),
    ):
        command = add(command)
    return command


@plot.command()
@record_options
@out_option("density.png")
def density(**given: Any) -> None:
    """Plot where the next point is predicted to be, such as the pen's, step by step along a record.

    MODEL is a run folder or a weights file.
    """
    from seqdens.plots import plot_density

    plot_along(plot_density, **given)


@plot.command()
@record_options
@out_option("mixture.png")
def mixture(**given: Any) -> None:
    """Plot the weights of the mixture, step by step along a record.

    MODEL is a run folder or a weights file.
    """
    from seqdens.plots import plot_mixture

    plot_along(plot_mixture, **given)


@plot.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--text", required=True, help="One line, to be written.")
@click.option(
    "--bias",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="0 for as varied a hand as was learnt, above for a neater one.",
)
@click.option("--seed", type=click.IntRange(0), help="Of the draws; default: a new one each time.")
@out_option("window.png")
def window(model: Path | None, text: str, bias: float, seed: int | None, out: Path) -> None:
    """Plot which characters of a text were looked at, step by step, while it was written.

    MODEL is a run folder or a weights file of a model that writes texts; default: the weights that come with seqdens.
    """
    from seqdens.model import SequenceModel
    from seqdens.plots import check_suffix, plot_window
    from seqdens.styles import LONGEST
    from seqdens.writing import shipped, write

    check_suffix(out)
    if len(" ".join(text.split())) > LONGEST:
        raise UsageError(f"--text has {len(text):,} characters, but a line has {LONGEST} at most.")
    loaded = SequenceModel.load(model) if model else shipped()
    written = write(" ".join(text.split()), loaded, characters=LONGEST, bias=bias, seed=seed, tries=1)
    line = written.lines[0]
    about = marked(loaded.origin.get("dataset", "unknown data"), loaded.origin.get("synthetic", False))
    fault = f", which {line.fault}" if line.fault else ""
    plot_window(out, loaded, line.text, line.points, f"“{line.text}”, bias {bias:g}{fault}; model learnt from {about}")
    click.echo(f"{out}: points {len(line.points):,}, seed {written.seed}{fault}")


@plot.command()
@click.argument("run", type=click.Path(path_type=Path))
@out_option("", more="; default: loss.png in RUN")
def loss(run: Path, out: Path | None) -> None:
    """Plot the losses of RUN, a run folder, epoch by epoch."""
    from seqdens.runner import plot_history
    from seqdens.training.run_folder import Run

    out, folder = out or run / "loss.png", Run(run)
    if not folder.metrics.is_file():
        raise DataError(f"there is no {folder.metrics}; a run writes it after its first epoch.")
    try:
        history = folder.read_metrics()
        plot_history(out, history)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(f"{folder.metrics} holds no losses of a run ({one_line(error)}).") from error
    if not history:
        raise DataError(f"{folder.metrics} holds no losses; a run adds a row after each epoch.")
    click.echo(f"{out}: losses of {run}")


def plot_along(
    plot: Callable[..., Path],
    model: Path,
    record: str | None,
    split: Any,
    steps: int | None,
    device: str,
    out: Path,
    **chosen: Any,
) -> None:
    """Load, choose, plot, and say what was plotted."""
    import numpy as np

    from seqdens.batches import collate
    from seqdens.devices import choose_device
    from seqdens.model import SequenceModel

    loaded = SequenceModel.load(model).to(choose_device(device))
    data = data_for(model, **chosen)
    loaded.check_data(data)
    index = find_record(data, record, split)
    batch = collate(data, np.array([index]), loaded.characters)
    if steps:
        batch = batch._replace(points=batch.points[:, :steps], lengths=batch.lengths.clamp(max=steps))
    plot(out, loaded, batch.to(loaded.device), title(loaded, data, index, int(batch.lengths)))
    click.echo(f"{out}: {data.provenance.record_name} {printable(data.ids[index])}, points {int(batch.lengths):,}")


def find_record(data: Prepared, name: str | None, split: Any) -> int:
    """The record of that name, else the first of the split; raises `UsageError` where there is none."""
    kind, dataset = data.provenance.record_name, data.provenance.dataset
    if name is None:
        if not len(members := data.split(split)):
            raise UsageError(f"{dataset} has no {kind} in its split {split!r}; choose another.")
        return int(members[0])
    known = list(data.ids)
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0)
        raise UsageError(f"{dataset} has no {kind} {name!r}; the nearest of {len(known):,}: {', '.join(near)}.")
    return known.index(name)


def title(model: SequenceModel, data: Prepared, index: int, steps: int) -> str:
    """Which record it is, how much of it, and what the model learnt from."""
    about, text = data.provenance, shorten(data.texts[index], 50, placeholder="…")
    parts = [f"{about.record_name.capitalize()} {data.ids[index]} of {marked(about.dataset, about.synthetic)}"]
    if text:
        parts.append(f"“{text}”")
    if steps < (whole := len(data.offsets(index))):
        parts.append(f"first {steps} of {whole} points")
    origin = marked(model.origin.get("dataset", "unknown data"), model.origin.get("synthetic", False))
    return f"{', '.join(parts)}; model learnt from {origin}"


def marked(dataset: str, synthetic: bool) -> str:
    return f"{dataset} (synthetic)" if synthetic else dataset
