"""Drawing sequences from a model, one step at a time.

B records, T steps, D columns of a point; raw and normalised as in `model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from seqdens.errors import UsageError

if TYPE_CHECKING:
    from seqdens.model import SequenceModel

LARGEST_SEED = 2**63 - 1
LARGEST_BIAS = 1e6  # far beyond the last effect, and well before logits overflow


@torch.inference_mode()
def draw_points(
    model: SequenceModel, count: int, steps: int, primer: Tensor | None, bias: float, seed: int
) -> Iterator[np.ndarray]:
    """The points of `SequenceModel.stream`, whose arguments these are once they are checked."""
    with evaluating(model):
        yield from _points(model, count, steps, primer, bias, Noise(seed, count, model.head.noise_size))


def _points(
    model: SequenceModel, count: int, steps: int, primer: Tensor | None, bias: float, noise: Noise
) -> Iterator[np.ndarray]:
    ends = [i for i, column in enumerate(model.columns) if column.role == "sequence_end"]
    ones = torch.ones(count, dtype=torch.long, device=model.device)
    state = model.encoder.start(count)
    step_input = model.shift.new_zeros(count, 1, model.input_size)
    if primer is not None:
        read = model.inputs(model.normalise(primer)).expand(count, -1, -1)
        history = torch.cat([step_input, read[:, :-1]], dim=1)
        state = model.encoder(history, ones * history.shape[1], state).state
        step_input = read[:, -1:]
    ended = torch.zeros(count, dtype=torch.bool, device=model.device)
    for _ in range(steps):
        features, state, _ = model.encoder(step_input, ones, state)
        uniform = torch.from_numpy(noise.draw()).to(model.device).unsqueeze(1)
        point = model.head(features).sample(uniform, bias)
        raw = point[:, 0] * model.scale + model.shift
        yield raw.masked_fill(ended.unsqueeze(1), torch.nan).cpu().numpy()
        ended |= (raw[:, ends] > 0.5).any(dim=1) | model.encoder.finished(state, None)
        if ended.all():
            return
        step_input = model.inputs(point)


def check_prime(model: SequenceModel, prime: np.ndarray) -> Tensor:
    """The raw offsets (1, T, D) of `prime` (T, D); raises `UsageError` where the model cannot read them."""
    points = np.asarray(prime)
    fits = points.ndim == 2 and points.shape[1] == len(model.columns) and len(points) > 0
    if not fits or points.dtype.kind not in "biuf":
        names = ", ".join(column.name for column in model.columns)
        wanted = f"numbers (T, {len(model.columns)}), T at least 1: {names}"
        raise UsageError(f"prime is {points.dtype} {points.shape}, but must be {wanted}.")
    for column, values in zip(model.columns, points.T, strict=True):
        states = column.states
        if np.isinf(values).any() if states is None else not np.isin(values, np.arange(states)).all():
            wanted = "finite" if states is None else f"whole numbers from 0 to {states - 1}"
            raise UsageError(f"column {column.name!r} of prime must hold {wanted}.")
    return torch.as_tensor(points.astype(np.float32), device=model.device).unsqueeze(0)


def check_arguments(count: int, steps: int, bias: float, seed: int | None) -> None:
    """Raises `UsageError` for a number out of range."""
    for name, value, least, most in (
        ("count", count, 1, math.inf),
        ("steps", steps, 1, math.inf),
        ("bias", bias, 0, LARGEST_BIAS),
        ("seed", seed or 0, 0, LARGEST_SEED),
    ):
        if not least <= value <= most:
            limit = f" and at most {most}" if most < math.inf else ""
            raise UsageError(f"{name} is {value}, but must be at least {least}{limit}.")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class Noise:
    """Uniform numbers in [0, 1) that depend on (seed, record, step) alone; `draw` gives (records, size) a step."""

    BLOCK = 64  # steps drawn at a time

    def __init__(self, seed: int, records: int, size: int) -> None:
        keys = np.array([(seed, record) for record in range(records)], np.uint64)
        self._generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._size = size
        self._blocks = self._draw_blocks()

    def _draw_blocks(self) -> Iterator[np.ndarray]:
        while True:
            block = [generator.random((self.BLOCK, self._size), np.float32) for generator in self._generators]
            yield from np.stack(block, axis=1)

    def draw(self) -> np.ndarray:
        return next(self._blocks)
