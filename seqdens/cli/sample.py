"""`seqdens sample`: draw from a trained model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-n", "--count", type=click.IntRange(1), default=8, show_default=True, help="How many records.")
@click.option("--steps", type=click.IntRange(1), default=700, show_default=True, help="The longest they may become.")
@click.option("--bias", type=click.FloatRange(0), default=0.0, show_default=True, help="0 fair, above neater.")
@click.option("--prime", type=click.Path(path_type=Path), metavar="FILE", help="Ink (npz, json, csv) to continue.")
@click.option("--seed", type=click.IntRange(0), help="Of the draws; default: a new one each time.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.svg"),
    show_default=True,
    metavar="FILE",
    help="Where to: .svg, .png, .npz, .csv or .json.",
)
def sample(model: Path, count: int, steps: int, bias: float, prime: Path | None, seed: int | None, out: Path) -> None:
    """Draw records from MODEL, a run folder or a weights file."""
    from seqdens.export import load_ink, save_records
    from seqdens.model import SequenceModel
    from seqdens.runner import caption

    loaded = SequenceModel.load(model)
    ink = load_ink(prime).records[0] if prime else None
    records = loaded.sample(count, steps=steps, prime=ink, bias=bias, seed=seed)
    save_records(records, out, columns=loaded.columns, title=caption(loaded, bias))
    click.echo(f"{count} records, {sum(map(len, records)):,} points, drawn to {out}")
