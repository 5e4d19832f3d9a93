"""How likely a model finds data: totals over whole records, in stated units.

B records, T steps, D columns of a point, R of them real. A loss is a negative log-likelihood, lower is better;
"raw" and "normalised" as in `model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqdens.batches import Batch, evaluation_batches
from seqdens.cache import Prepared
from seqdens.datasets.base import SPLITS, Split
from seqdens.devices import autocast
from seqdens.errors import DataError, UsageError
from seqdens.model import Loss, SequenceModel
from seqdens.sampling import Precision, check_precision, evaluating

Part = Split | Literal["all"]

AT_FLOOR = 1.01  # times the sigma floor


@dataclass
class Likelihood:
    """Sums over records of the negative log-likelihood in nats, normalised units, and what to divide them by."""

    nats: float = 0.0
    points: int = 0
    records: int = 0
    terms: dict[str, float] = field(default_factory=dict)  # nats by named part

    def add(self, loss: Loss, batch: Batch) -> None:
        self.nats += _total(loss.nats)
        self.points += int(batch.lengths.sum())
        self.records += len(batch.lengths)
        for name, term in loss.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + _total(term)

    def metrics(self, prefix: str) -> dict[str, float]:
        """`prefix_nats_per_point` and `prefix_nats_per_record`."""
        return {
            f"{prefix}_nats_per_point": self.nats / max(1, self.points),
            f"{prefix}_nats_per_record": self.nats / max(1, self.records),
        }


def _total(values: Tensor) -> float:
    return values.cpu().sum(dtype=torch.float64).item()  # on the CPU: some devices have no float64


@torch.no_grad()
def evaluate(model: SequenceModel, batches: Iterable[Batch]) -> Likelihood:
    """The likelihood of whole records under `model`, in evaluation mode, on its device."""
    likelihood = Likelihood()
    with evaluating(model.modules()):
        for batch in batches:
            batch = batch.to(model.device)
            likelihood.add(model(batch), batch)
    return likelihood


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a model makes of one split of a data set, or of all of it, over whole records, in nats unless bits are said.

    `mean` and `std` (R,), of the model's scaling, are what the normalised units of the `real_columns` mean; `observed`
    (R,) is at which share of the points they have a value, since a missing one adds nothing. `bits_per_point` is an
    upper bound on the loss of the whole numbers that the data hold, exact without real columns, None where they hold
    others.
    `sse_per_point` are squared errors, summed over the real columns (none: empty) in normalised units, of each
    prediction that the distribution offers. `share_at_floor` is the share of points whose most responsible component
    has in some real column a standard deviation of at most `floor` (R,), normalised: 1.01 times the head's sigma_floor
    or, where that is more and the data are whole numbers, the distance of two of these; both None where the
    distribution has no components.
    """

    dataset: str
    synthetic: bool
    split: Part
    record_name: str  # what one record is called
    records: int
    points: int
    points_per_record: float
    real_columns: tuple[str, ...]
    observed: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    exact: bool  # False: every loss is an upper bound
    nats_per_record: float
    nats_per_point: float
    terms_nats_per_record: dict[str, float]  # by named part
    terms_nats_per_point: dict[str, float]
    raw_nats_per_point: float
    bits_per_point: float | None
    sse_per_point: dict[str, float]
    floor: tuple[float, ...] | None
    share_at_floor: float | None


@torch.no_grad()
def measure(
    model: SequenceModel,
    data: Prepared,
    split: Part = "valid",
    *,
    batch_size: int = 64,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measures:
    """What `model`, on its device and in evaluation mode, makes of a split of `data`, or of "all" its records.

    The same numbers whatever the batch size, but for rounding. `precision` is that of products, of "int8" the encoder's
    alone. `progress` is told of records done and of all.
    Raises `UsageError` where the columns are not the model's or the split is empty, `DataError` where the loss is
    not finite.

    >>> import seqdens
    >>> data = seqdens.load("hershey", lines=6, writers=3)
    >>> encoder, head = seqdens.encoder("memoryless"), seqdens.head("gmm-bernoulli", components=5)
    >>> found = measure(SequenceModel.for_data(data, encoder, head), data)
    >>> found.records, found.record_name, sorted(found.terms_nats_per_point)
    (2, 'line', ['real', 'stroke_end'])
    """
    model.check_data(data)
    records = data.split(split)
    if not len(records):
        counts = ", ".join(f"{name} {len(data.split(name)):,}" for name in SPLITS)
        raise UsageError(f"split {split!r} of {data.provenance.dataset} has no records; there are: {counts}.")
    check_precision(model, precision)
    meter = _Meter(model, data.integer, int8=precision == "int8")
    with evaluating(model.modules()), autocast(model.device, precision):
        for batch in evaluation_batches(data, records, batch_size, model.characters):
            meter.add(batch.to(model.device))
            progress(meter.likelihood.records, len(records))
    return meter.read(data, split)


class _Meter:
    """Sums over batches of all that `Measures` holds."""

    def __init__(self, model: SequenceModel, integer: bool, int8: bool) -> None:
        self.model, self.int8 = model, int8
        self.real = [index for index, column in enumerate(model.columns) if column.kind == "real"]
        self.integer = integer or not self.real
        self.scale = model.scale[self.real]
        self.floor = torch.full_like(self.scale, AT_FLOOR * model.head.sigma_floor)
        if integer:
            self.floor = self.floor.maximum(1 / self.scale)
        self.likelihood = Likelihood()
        self.log_scale = self.dequantised = 0.0  # nats
        self.observed = np.zeros(len(self.real))  # points
        self.squares: dict[str, float] = {}
        self.at_floor: float | None = None

    def add(self, batch: Batch) -> None:
        targets, valid = self.model.normalise(batch.points), batch.valid
        distribution = self.model.predict(batch, int8=self.int8)
        self.likelihood.add(Loss.of(distribution, targets, valid), batch)
        self.log_scale += _total(self.model.log_scale(batch))
        self.observed += (~targets.isnan() & valid.unsqueeze(-1))[..., self.real].sum((0, 1)).cpu().numpy()
        if self.integer:
            noisy = targets.clone()
            noisy[..., self.real] += dequantisation(batch, len(self.real)).to(targets) / self.scale
            self.dequantised += _total(Loss.of(distribution, noisy, valid).nats)
        for name, prediction in distribution.predictions().items() if self.real else ():
            errors = (prediction - targets)[..., self.real].nan_to_num() * valid.unsqueeze(-1)
            self.squares[name] = self.squares.get(name, 0.0) + _total(errors.square())
        sigmas = distribution.sigmas_at(targets)
        if sigmas is not None and self.floor.any():
            self.at_floor = (self.at_floor or 0.0) + _total((sigmas <= self.floor).any(-1) & valid)

    def read(self, data: Prepared, split: Part) -> Measures:
        nats, points, records = self.likelihood.nats, self.likelihood.points, self.likelihood.records
        if not math.isfinite(nats + self.dequantised):
            part = "all records" if split == "all" else f"the {split} split"
            raise DataError(
                f"the loss of {part} of {data.provenance.dataset} is {nats}, {self.dequantised} with noise: "
                "the weights are not of use; train again with a lower training.learning_rate."
            )
        terms = self.likelihood.terms
        return Measures(
            dataset=data.provenance.dataset,
            synthetic=data.provenance.synthetic,
            split=split,
            record_name=data.provenance.record_name,
            records=records,
            points=points,
            points_per_record=points / records,
            real_columns=tuple(self.model.columns[index].name for index in self.real),
            observed=tuple((self.observed / points).tolist()),
            mean=tuple(self.model.mean),
            std=tuple(self.model.std),
            exact=self.model.exact,
            nats_per_record=nats / records,
            nats_per_point=nats / points,
            terms_nats_per_record={name: term / records for name, term in terms.items()},
            terms_nats_per_point={name: term / points for name, term in terms.items()},
            raw_nats_per_point=(nats + self.log_scale) / points,
            bits_per_point=(self.dequantised + self.log_scale) / points / math.log(2) if self.integer else None,
            sse_per_point={name: square / points for name, square in self.squares.items()},
            floor=None if self.at_floor is None else tuple(self.floor.tolist()),
            share_at_floor=None if self.at_floor is None else self.at_floor / points,
        )


def dequantisation(batch: Batch, size: int) -> Tensor:
    """Noise (B, T, size) uniform in [-1/2, 1/2), zero in the padding: a function of record and step alone."""
    noise = np.zeros((*batch.points.shape[:2], size), np.float32)
    for row, record, length in zip(noise, batch.records.tolist(), batch.lengths.tolist(), strict=True):
        row[:length] = np.random.default_rng(record).random((length, size), np.float32) - 0.5
    return torch.from_numpy(noise)
