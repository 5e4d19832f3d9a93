"""The trainer's state as one file: weights, optimiser, position in the data, best so far, random numbers."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seqdens.errors import DataError
from seqdens.files import replacing
from seqdens.model import SequenceModel

FORMAT = "seqdens-trainer"


@dataclass
class Progress:
    """Where a training run stands. `batch` counts the batches done of `epoch`, sums are of this epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    nats: float = 0.0
    points: int = 0
    records: int = 0
    best: float = float("inf")  # validation nats per point
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # metrics of finished epochs


def save(path: Path, model: SequenceModel, optimiser: Optimizer, progress: Progress) -> None:
    """Write the state; what stood at `path` is replaced only by a complete file."""
    state = {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": asdict(progress),
        "random": random_state(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load(path: Path, model: SequenceModel, optimiser: Optimizer) -> Progress:
    """Put model, optimiser and random numbers where `save` left them; raises `DataError` where they do not fit."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=model.device, weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']!r}")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        set_random_state(state["random"])
        return Progress(**state["progress"])
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{path} is no trainer state that fits this run ({str(error).splitlines()[0]}); "
            "start again with --overwrite, or in another folder."
        ) from None


def random_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
