"""`seqdens evaluate`: what trained models make of data, in stated units, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from seqdens.cli.run_data import data_options, dataset_part, from_elsewhere, prepare_part
from seqdens.errors import SeqdensError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from seqdens.cache import Prepared
    from seqdens.evaluation import Measures
    from seqdens.model import SequenceModel

STATIC = "static Gaussian"


class Subject(NamedTuple):
    """A model under its name, and what to measure it with."""

    name: str
    model: SequenceModel
    data: Prepared
    elsewhere: bool = False  # the data are known to be other files than the model learnt from


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test", "all"]),
    help="Which records; default: all where --data names other files than those of the run, else valid.",
)
@click.option("--static", is_flag=True, help="Add the static Gaussian, fitted on the training split, to compare with.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one a model, instead of a table.")
@data_options
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="Of products; of int8, the encoder's alone, and a step at a time.",
)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Records at a time.")
def evaluate(
    models: tuple[Path, ...],
    split: Any,
    static: bool,
    as_json: bool,
    cache: Path | None,
    device: str,
    precision: Any,
    batch_size: int,
    **chosen: Any,
) -> None:
    """Measure how likely each MODEL, a run folder or a weights file, finds the data.

    The data are by default those that the model learnt from. docs/what-the-loss-means.md explains each number.
    """
    from rich.console import Console

    from seqdens.cli.display import counting
    from seqdens.devices import choose_device
    from seqdens.evaluation import measure

    where = choose_device(device)
    subjects = list(with_data(models, cache, **chosen))
    told = []
    if split is None:
        split = "all" if any(subject.elsewhere for subject in subjects) else "valid"
        if split == "all":
            told.append("All records are measured: --data names other files than the run's; --split takes a part.")
    if static:
        baselines, refused = static_subjects(subjects)
        subjects, told = subjects + baselines, told + refused
        if split == "all" and baselines:
            told.append(f"{STATIC}: fitted on the training split, which is among the records measured.")
    found = []
    for name, model, data, _ in subjects:
        with naming(name), counting(Console(stderr=True), f"Evaluating {name}") as progress:
            model.to(where)
            found.append(measure(model, data, split, batch_size=batch_size, precision=precision, progress=progress))
    if as_json:
        described = [
            {"model": name, "learnt_from": model.origin.get("dataset"), **asdict(measures)}
            for (name, model, *_), measures in zip(subjects, found, strict=True)
        ]
        click.echo(json.dumps(described, indent=2))
    else:
        Console().print(table([subject.name for subject in subjects], found))
    for line in [*told, *notes(subjects, found)]:
        click.echo(printable(line), err=as_json)


def with_data(paths: Iterable[Path], cache: Path | None, **chosen: Any) -> Iterator[Subject]:
    """Each model with its data, of which equal ones are prepared once."""
    from seqdens.model import SequenceModel

    prepared: dict[str, Prepared] = {}
    for path in paths:
        model, part = SequenceModel.load(path), dataset_part(path, **chosen)
        key = repr(sorted(part.items()))
        data = prepared[key] = prepared.get(key) or prepare_part(part, cache)
        with naming(str(path)):
            model.check_columns(data.columns, data.provenance.dataset)
        yield Subject(str(path), model, data, from_elsewhere(path, part))


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Has an error in the block say of which model it is."""
    try:
        yield
    except SeqdensError as error:
        raise type(error)(f"{model}: {error}") from None


def static_subjects(subjects: Iterable[Subject]) -> tuple[list[Subject], list[str]]:
    """The static Gaussian of each data set, in the units of the first model measured with it, or why there is none."""
    from seqdens.static import static_gaussian

    first: dict[Path, Subject] = {}
    for subject in subjects:
        first.setdefault(subject.data.path, subject)
    fitted, refused = [], []
    for _, model, data, _ in first.values():
        try:
            fitted.append(Subject(STATIC, static_gaussian(data, like=model), data))
        except SeqdensError as error:
            refused.append(f"No {STATIC} for {data.provenance.dataset}: {error}")
    return fitted, refused


def table(names: list[str], found: list[Measures]) -> Table:
    """Measures as rows, models as columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    kinds = {measures.record_name for measures in found}
    record = kinds.pop() if len(kinds) == 1 else "record"
    gaps = any(share < 1 for measures in found for share in measures.observed)
    for group in zip(*(rows(measures, record, gaps) for measures in found), strict=True):
        for label in dict.fromkeys(label for column in group for label in column):
            table.add_row(label, *(column.get(label, "-") for column in group))
    return table


def rows(measures: Measures, record: str, gaps: bool) -> Iterator[dict[str, str]]:
    """Groups of what is measured, as a person reads it, by its label.

    `record` is what one is called; with `gaps` it is said how many values are there.
    """
    yield {
        "data set": measures.dataset + (" (synthetic)" if measures.synthetic else ""),
        "split": measures.split,
        f"{record}s": f"{measures.records:,}",
        "points": f"{measures.points:,}",
        f"points per {record}": f"{measures.points_per_record:.1f}",
    }
    scaling = zip(measures.real_columns, measures.mean, measures.std, measures.observed, strict=True)
    found = {}
    for name, mean, std, observed in scaling:
        found[f"{name}: mean, std (raw)"] = several((mean, std))
        if gaps:
            found[f"{name}: observed"] = f"{observed:.1%}"
    yield found
    yield {f"nats per {record}": f"{measures.nats_per_record:+.2f}"}
    yield {f"  {name} per {record}": f"{nats:+.2f}" for name, nats in measures.terms_nats_per_record.items()}
    yield {"nats per point": f"{measures.nats_per_point:+.3f}"}
    yield {f"  {name} per point": f"{nats:+.3f}" for name, nats in measures.terms_nats_per_point.items()}
    yield {"nats per point, raw units": f"{measures.raw_nats_per_point:+.3f}"} if measures.mean else {}
    bits = f"bits per point{', at most' if measures.mean else ''}"
    yield {} if measures.bits_per_point is None else {bits: f"{measures.bits_per_point:.3f}"}
    yield {f"SSE per point, {name}": f"{square:.3f}" for name, square in measures.sse_per_point.items()}
    floor = measures.share_at_floor
    yield {} if floor is None else {"points at the sigma floor": f"{floor:.2%}"}


def several(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


def notes(subjects: list[Subject], found: list[Measures]) -> Iterator[str]:
    """What the numbers depend on."""
    real = any(measures.mean for measures in found)
    scaled = ", of values scaled by mean and std unless raw is said" if real else ""
    yield f"Losses are negative log-likelihoods, lower is better{scaled}."
    if any(share < 1 for measures in found for share in measures.observed):
        yield "Missing values add nothing to a loss: nats per point are of what is observed of a point."
    if any(measures.bits_per_point is not None and measures.mean for measures in found):
        yield "Bits are of the whole numbers that the data hold: an upper bound, by noise of up to half a raw unit."
    for dataset, floor in dict.fromkeys((measures.dataset, measures.floor) for measures in found if measures.floor):
        yield f"Sigma floor of {dataset}: standard deviations of at most {several(floor)}."
    for (name, model, *_), measures in zip(subjects, found, strict=True):
        if not measures.exact:
            yield f"{name}: its losses are at most these, a bound."
        if (origin := model.origin.get("dataset")) != measures.dataset:
            yield f"{name}: learnt from {origin}, measured with {measures.dataset}."
    if len({subject.model.columns for subject in subjects}) > 1:
        yield "The models predict different columns, so their losses do not compare."
        return
    if len({subject.data.path for subject in subjects}) > 1:
        yield "Not all models are measured with the same data."
    if len({(measures.mean, measures.std) for measures in found}) > 1:
        bits = "" if any(measures.bits_per_point is None for measures in found) else " or bits"
        yield f"Not all models have the same units: compare raw units{bits}."
