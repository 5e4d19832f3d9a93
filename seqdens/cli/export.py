"""`seqdens export`: a step of sampling for other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--bias",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0 for fair samples, above for neater ones.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", default="step.onnx", show_default=True, help="Where to."
)
def export(model: Path, bias: float, out: Path) -> None:
    """Write a step of sampling from MODEL, a run folder or a weights file, as an ONNX file."""
    from seqdens.exporting import export_onnx
    from seqdens.model import SequenceModel

    export_onnx(SequenceModel.load(model), out, bias=bias)
    click.echo(f"{out}: a step of sampling, bias {bias:g}")
