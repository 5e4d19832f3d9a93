"""The trainer's state as one file: weights, optimiser, position in the data, best so far, random numbers."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
import torch
from torch import Tensor
from torch.optim import Optimizer

from seqdens.errors import DataError, UsageError
from seqdens.files import replacing
from seqdens.model import SequenceModel

FORMAT = "seqdens-trainer"
EARLIER = {"accumulate": 1}  # what the identity of a state meant before it said so


@dataclass
class Progress:
    """Where a training run stands. `batch` counts the batches done of `epoch`, sums are of this epoch.

    `skipped` counts its steps whose loss or gradients are not finite, which are no part of the sums.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    nats: float = 0.0
    points: int = 0
    records: int = 0
    skipped: int = 0
    skipped_in_a_row: list[list[int]] = field(default_factory=list)  # the records of each step, the last one's too
    best: float = float("inf")  # validation nats per point
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # metrics of finished epochs


def save(
    path: Path, model: SequenceModel, optimiser: Optimizer, progress: Progress, identity: Mapping[str, Any]
) -> None:
    """Write the state; what stood at `path` is replaced only by a complete file.

    `identity` is plain data on what must not change if the run is to go on as if it had not stopped.
    """
    state = {
        "format": FORMAT,
        "identity": dict(identity),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": asdict(progress),
        "random": random_state(model.device),
    }
    written = io.BytesIO()  # torch.save would hide why a file cannot be written
    torch.save(state, written)
    with replacing(path) as temporary:
        temporary.write_bytes(written.getbuffer())


def load(path: Path, model: SequenceModel, optimiser: Optimizer, identity: Mapping[str, Any]) -> Progress:
    """Put model, optimiser and random numbers where `save` left them.

    Raises `UsageError` where `identity` is another than was saved, `DataError` for a file that cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # that a file is odd is said below
            check_archive(path)
            state = torch.load(path, map_location=model.device, weights_only=True)
        if parts_of(state, {}) > path.stat().st_size:
            raise ValueError("it holds the same over and over")
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError(f"it does not say that it is a {FORMAT}")
        check_same(path, EARLIER | state["identity"], identity)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        set_random_state(state["random"], model.device)
        return msgspec.convert(asdict(Progress(**state["progress"])), Progress)
    except UsageError:
        raise
    except Exception as error:  # of a file from anywhere, anything may be wrong
        reason = "it holds more than plain data" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise DataError(
            f"{path} is no trainer state, or a damaged one ({reason}); "
            "start again with --overwrite, or in another folder."
        ) from None


def check_archive(path: Path) -> None:
    """Raises `ValueError` where a file unpacks to more than it holds, or not to what was written, as torch would not.

    `torch.save` packs nothing.
    """
    with ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"it unpacks to {size:,} bytes")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is another")


def parts_of(state: Any, known: dict[int, float]) -> float:
    """How many parts `state` has, those counted again that stand in it again; a text is one for each 100 characters.

    `known` has those of lists and the like by their `id`; what holds itself has no end. Raises `ValueError` for a
    tensor that is larger than its numbers.
    """
    if isinstance(state, Tensor) and state.nbytes > state.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {tuple(state.shape)} has {state.untyped_storage().nbytes()} bytes")
    if isinstance(state, str | bytes):
        return 1 + len(state) / 100
    if not isinstance(state, dict | list | tuple | set):
        return 1
    if id(state) not in known:
        known[id(state)] = math.inf
        inner = [*state.keys(), *state.values()] if isinstance(state, dict) else state
        known[id(state)] = 1 + sum(parts_of(each, known) for each in inner)
    return known[id(state)]


def check_same(path: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises `UsageError` where what must not change has changed."""
    changed = [f"{name} {saved.get(name)}, now {value}" for name, value in identity.items() if saved.get(name) != value]
    if changed:
        raise UsageError(
            f"{path} was saved by a run with another setting ({'; '.join(changed)}); "
            "take back what changes it, or start again with --overwrite, or in another folder."
        )


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
