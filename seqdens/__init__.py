"""Sequence density models from plugins: data sets, encoders and heads, assembled and trained.

Everything public is a name of this module, imported on first use, so that `import seqdens` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqdens.version import __version__

if TYPE_CHECKING:
    from seqdens.cache import Prepared
    from seqdens.components import dataset, encoder, experiment, head, register, regulariser
    from seqdens.datasets.base import Column, Dataset, Record, Skipped, Source, Split
    from seqdens.drawing import draw
    from seqdens.encoders.base import Context, Encoded, Encoder, State
    from seqdens.errors import DataError, SeqdensError, UsageError
    from seqdens.evaluation import Measures, measure
    from seqdens.experiments.base import Experiment
    from seqdens.heads.base import Distribution, Head
    from seqdens.hookspecs import hookimpl
    from seqdens.model import SequenceModel
    from seqdens.plugins import load_events
    from seqdens.prepare import load
    from seqdens.training.run_folder import Run
    from seqdens.training.trainer import Trainer

_HOMES = {
    "seqdens.cache": ("Prepared",),
    "seqdens.components": ("dataset", "encoder", "experiment", "head", "register", "regulariser"),
    "seqdens.datasets.base": ("Column", "Dataset", "Record", "Skipped", "Source", "Split"),
    "seqdens.drawing": ("draw",),
    "seqdens.encoders.base": ("Context", "Encoded", "Encoder", "State"),
    "seqdens.errors": ("DataError", "SeqdensError", "UsageError"),
    "seqdens.evaluation": ("Measures", "measure"),
    "seqdens.experiments.base": ("Experiment",),
    "seqdens.heads.base": ("Distribution", "Head"),
    "seqdens.hookspecs": ("hookimpl",),
    "seqdens.model": ("SequenceModel",),
    "seqdens.plugins": ("load_events",),
    "seqdens.prepare": ("load",),
    "seqdens.training.run_folder": ("Run",),
    "seqdens.training.trainer": ("Trainer",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
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
    "SeqdensError",
    "SequenceModel",
    "Skipped",
    "Source",
    "Split",
    "State",
    "Trainer",
    "UsageError",
    "__version__",
    "dataset",
    "draw",
    "encoder",
    "experiment",
    "head",
    "hookimpl",
    "load",
    "load_events",
    "measure",
    "register",
    "regulariser",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seqdens' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
