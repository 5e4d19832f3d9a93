"""Sequence density models from plugins: data sets, encoders and heads, assembled and trained.

Everything public is a name of this module, imported on first use, so that `import seqdens` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqdens.version import __version__

if TYPE_CHECKING:
    from seqdens.batches import collate
    from seqdens.cache import Prepared
    from seqdens.components import dataset, encoder, experiment, head, register, regulariser
    from seqdens.datasets.base import (
        SEQUENCE_END,
        STROKE_END,
        Column,
        Dataset,
        Record,
        Skipped,
        Source,
        Split,
        X,
        Y,
    )
    from seqdens.drawing import draw
    from seqdens.encoders.base import Context, Encoded, Encoder, State, Stepper
    from seqdens.errors import DataError, SeqdensError, UsageError
    from seqdens.evaluation import Measures, measure
    from seqdens.experiments.base import Experiment
    from seqdens.exporting import SamplingStep, export_onnx, exported_step
    from seqdens.heads.base import Distribution, Head
    from seqdens.hookspecs import hookimpl
    from seqdens.model import SequenceModel
    from seqdens.offsets import to_points
    from seqdens.plots import plot_density, plot_loss, plot_mixture
    from seqdens.plugins import load_events
    from seqdens.prepare import load
    from seqdens.styles import Style, load_style
    from seqdens.training.run_folder import Run
    from seqdens.training.trainer import Trainer
    from seqdens.writing import write

_HOMES = {
    "seqdens.batches": ("collate",),
    "seqdens.cache": ("Prepared",),
    "seqdens.components": ("dataset", "encoder", "experiment", "head", "register", "regulariser"),
    "seqdens.datasets.base": (
        *("SEQUENCE_END", "STROKE_END", "X", "Y"),
        *("Column", "Dataset", "Record", "Skipped", "Source", "Split"),
    ),
    "seqdens.drawing": ("draw",),
    "seqdens.encoders.base": ("Context", "Encoded", "Encoder", "State", "Stepper"),
    "seqdens.errors": ("DataError", "SeqdensError", "UsageError"),
    "seqdens.evaluation": ("Measures", "measure"),
    "seqdens.experiments.base": ("Experiment",),
    "seqdens.heads.base": ("Distribution", "Head"),
    "seqdens.exporting": ("SamplingStep", "export_onnx", "exported_step"),
    "seqdens.hookspecs": ("hookimpl",),
    "seqdens.model": ("SequenceModel",),
    "seqdens.offsets": ("to_points",),
    "seqdens.plots": ("plot_density", "plot_loss", "plot_mixture"),
    "seqdens.plugins": ("load_events",),
    "seqdens.prepare": ("load",),
    "seqdens.styles": ("Style", "load_style"),
    "seqdens.training.run_folder": ("Run",),
    "seqdens.training.trainer": ("Trainer",),
    "seqdens.writing": ("write",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SEQUENCE_END",
    "STROKE_END",
    "Column",
    "Context",
    "DataError",
    "Dataset",
    "Distribution",
    "Encoded",
    "Encoder",
    "Experiment",
    "Head",
    "Measures",
    "Prepared",
    "Record",
    "Run",
    "SamplingStep",
    "SeqdensError",
    "SequenceModel",
    "Skipped",
    "Source",
    "Split",
    "State",
    "Stepper",
    "Style",
    "Trainer",
    "UsageError",
    "X",
    "Y",
    "__version__",
    "collate",
    "dataset",
    "draw",
    "encoder",
    "experiment",
    "export_onnx",
    "exported_step",
    "head",
    "hookimpl",
    "load",
    "load_events",
    "load_style",
    "measure",
    "plot_density",
    "plot_loss",
    "plot_mixture",
    "register",
    "regulariser",
    "to_points",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seqdens' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
