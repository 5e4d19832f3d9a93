"""`seqdens sample`: draw from a trained model."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from seqdens.model import SequenceModel


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-n", "--count", type=click.IntRange(1, 10**6), default=8, show_default=True, help="How many records.")
@click.option(
    "--steps",
    type=click.IntRange(1, 10**6),
    help="How many points each, at most; default: 700, of a text as many as it may need.",
)
@click.option(
    "--bias",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0 for fair samples, above for neater ones.",
)
@click.option(
    "--prime",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Continue the first record of FILE: .npz, .csv, .json.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16", "int8"]),
    default="float32",
    show_default=True,
    help="Of the encoder's products: bf16 and int8 are a little less exact, and faster on many processors.",
)
@click.option("--text", metavar="TEXT", help="What to write, with a model that takes text.")
@click.option("--prime-text", metavar="TEXT", help="What was written in --prime, with a model that takes text.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip", "replace"]),
    default="error",
    show_default=True,
    help="What is done with characters that the model does not know; replace writes what is most alike.",
)
@click.option("--seed", type=click.IntRange(0), help="Of the draws; default: a new one each time.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to: .svg, .png, .gif, .npz, .csv or .json; default: samples.svg, samples.csv of what is no ink.",
)
def sample(
    model: Path,
    count: int,
    steps: int | None,
    bias: float,
    prime: Path | None,
    precision: Any,
    text: str | None,
    prime_text: str | None,
    unknown: Any,
    seed: int | None,
    out: Path | None,
) -> None:
    """Draw records from MODEL, a run folder or a weights file."""
    from seqdens.drawing import is_ink
    from seqdens.export import save_records
    from seqdens.model import SequenceModel
    from seqdens.runner import caption

    loaded = SequenceModel.load(model)
    out = out or Path("samples.svg" if is_ink(loaded.columns) else "samples.csv")
    seed = secrets.randbits(32) if seed is None else seed
    records = loaded.sample(
        count,
        steps=steps,
        text=text,
        prime=primer(prime, loaded) if prime else None,
        prime_text=prime_text,
        unknown=unknown,
        bias=bias,
        seed=seed,
        precision=precision,
    )
    save_records(records, out, columns=loaded.columns, title=caption(loaded, bias, text))
    click.echo(f"{out}: records {len(records)}, points {sum(map(len, records)):,}, seed {seed}")


def primer(path: Path, model: SequenceModel) -> np.ndarray:
    """The first record of a data file; raises `UsageError` where its columns are not the model's."""
    from seqdens.export import load_ink

    ink = load_ink(path)
    model.check_columns(ink.columns, str(path))
    return ink.records[0]
