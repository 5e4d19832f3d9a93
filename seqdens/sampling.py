"""Drawing sequences from a model, one step at a time.

B records, T steps, D columns of a point; raw and normalised as in `model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from seqdens.devices import autocast
from seqdens.encoders.base import Encoder, Stepper, apply_encoder
from seqdens.errors import UsageError

if TYPE_CHECKING:
    from seqdens.encoders.base import Context, State
    from seqdens.model import SequenceModel

Precision = Literal["float32", "bf16", "int8"]

LARGEST_SEED = 2**63 - 1
LEAVING = 1 / 8  # of a batch: when so many of its records have ended, they leave it
AT_ONCE = 16  # points drawn ahead of whoever takes them one at a time
LARGEST_BIAS = 1e6  # far beyond the last effect, and well before logits overflow


@torch.inference_mode()
def draw_points(
    model: SequenceModel,
    count: int,
    steps: int,
    primer: Tensor | None,
    bias: float,
    seed: int,
    precision: Precision,
    context: Context | None = None,
) -> Iterator[np.ndarray]:
    """The points of `SequenceModel.stream`, whose arguments these are once they are checked."""
    modules = [*model.modules()]
    noise = Noise(seed, count, model.head.noise_size, model.device)
    products, int8 = autocast(model.device, precision), precision == "int8"
    with evaluating(modules), products:
        state, seen = _start(model, count, primer, context, int8)
        stepper = model.encoder.stepper(state, context, int8=True) if int8 else model.encoder.stepper(state, context)
    points = _points(model, stepper, steps, bias, noise, seen, products)
    block = 1
    while True:
        with evaluating(modules):  # not while another has the turn, who may be training
            drawn = [*islice(points, block)]
        yield from drawn
        if len(drawn) < block:
            return
        block = min(2 * block, AT_ONCE)  # the first point soon, and then few changes of modes


def _start(
    model: SequenceModel, count: int, primer: Tensor | None, context: Context | None, int8: bool
) -> tuple[State, Tensor]:
    """The state before the first point that is drawn, and the input (B, F) of that step."""
    state, seen = model.encoder.start(count, context), model.shift.new_zeros(count, 1, model.input_size)
    if primer is None:
        return state, seen[:, 0]
    read = model.inputs(model.normalise(primer)).expand(count, -1, -1)
    history = torch.cat([seen, read[:, :-1]], dim=1)
    lengths = torch.full((count,), history.shape[1], device=model.device)
    return apply_encoder(model.encoder, history, lengths, state, context, int8=int8).state, read[:, -1]


def _points(
    model: SequenceModel,
    stepper: Stepper,
    steps: int,
    bias: float,
    noise: Noise,
    seen: Tensor,
    products: AbstractContextManager[None],
) -> Iterator[np.ndarray]:
    """`steps` points (count, D), fewer where all records end before; those that have ended leave the batch.

    The encoder runs within `products`, the head in full precision: to cast its weights takes longer than it does.
    """
    shift, scale = model.shift, model.scale
    ends = [i for i, column in enumerate(model.columns) if column.role == "sequence_end"]
    count = len(seen)
    records, ended, over = np.arange(count), np.zeros(count, bool), 0  # of the batch; how many have ended
    never_finishes = _is(model.encoder.finished, Encoder.finished) and _is(stepper.finished, Stepper.finished)
    full_precision = autocast(model.device, "float32")
    with full_precision:
        draw = model.head.drawer(bias)
    for _ in range(steps):
        with products:
            features = stepper(seen)
        with full_precision:
            point = draw(features.to(shift.dtype), noise.draw()[:, 0])
        drawn = torch.addcmul(shift, point, scale).cpu().numpy()
        if over:
            drawn[ended] = np.nan
        if ends:
            ended |= (drawn[:, ends] > 0.5).any(axis=1)
        if not never_finishes:
            ended |= stepper.finished().cpu().numpy()
        yield drawn if len(records) == count else _spread(drawn, records, count)
        over = int(np.count_nonzero(ended))
        if over == len(records):
            return
        seen = model.inputs(point)
        if over and over >= LEAVING * len(records):
            left = torch.from_numpy(np.flatnonzero(~ended)).to(model.device)
            stepper.keep(left)
            seen = seen.index_select(0, left)
            noise.keep(left)
            records, ended, over = records[~ended], np.zeros(len(left), bool), 0


def _is(method: object, function: object) -> bool:
    """Return whether a bound method is that function."""
    return getattr(method, "__func__", None) is function


def _spread(points: np.ndarray, records: np.ndarray, count: int) -> np.ndarray:
    """Points (count, D) that are those given at `records`, and NaN elsewhere."""
    everywhere = np.full((count, points.shape[1]), np.nan, points.dtype)
    everywhere[records] = points
    return everywhere


def gather(points: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The records (T, D) of points (count, D), step by step, whose rows are NaN once a record has ended."""
    return [record[~np.isnan(record).all(axis=1)] for record in np.stack(list(points), axis=1)]


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


def check_precision(model: SequenceModel, precision: str) -> None:
    """Raises `UsageError` for a precision that there is not, or not for the model's encoder."""
    possible = [each for each in get_args(Precision) if each in model.encoder.precisions]
    if precision not in possible:
        encoder = model.components["encoder"].name
        raise UsageError(
            f"precision is {precision!r}, but must be one of {', '.join(possible)} for encoder {encoder!r}."
        )


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode of all these modules within the block; afterwards each is in the mode it was in."""
    # to set attributes of modules takes much longer; what torch.compile wraps around a model has no mode of its own
    modes = [own for own in map(vars, modules) if own.get("training")]
    for own in modes:
        own["training"] = False
    try:
        yield
    finally:
        for own in modes:
            own["training"] = True


class Noise:
    """Uniform numbers in [0, 1) that depend on (seed, record, step) alone; `draw` gives (records, 1, size) a step."""

    BLOCK = 64  # steps drawn and moved to the device at a time

    def __init__(self, seed: int, records: int, size: int, device: torch.device | str = "cpu") -> None:
        keys = np.array([(seed, record) for record in range(records)], np.uint64)
        self._generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._size, self._device = size, device
        self._steps: list[Tensor] = []  # the next one last

    def draw(self) -> Tensor:
        if not self._steps:
            shape = (self.BLOCK, 1, self._size)
            drawn = np.stack([generator.random(shape, np.float32) for generator in self._generators], axis=1)
            self._steps = [*reversed(torch.from_numpy(drawn).to(self._device).unbind())]
        return self._steps.pop()

    def keep(self, records: Tensor) -> None:
        """From now on, draw for those `records` (N,) alone, of the ones that were drawn for before."""
        self._generators = [self._generators[record] for record in records.tolist()]
        if self._steps:
            self._steps = [*torch.stack(self._steps).index_select(1, records).unbind()]
