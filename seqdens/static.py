"""The likelihood to beat: one Gaussian over all real columns, constant probabilities of the states of the others.

B sequences, T steps, N offsets, D columns of a point: R real and S binary or category ones, which have states. A
*pattern* (R,) bool says which of the real values of an offset are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from seqdens import components
from seqdens.cache import Prepared
from seqdens.datasets.base import Column
from seqdens.errors import DataError, UsageError
from seqdens.heads.base import Distribution, Head
from seqdens.model import SequenceModel
from seqdens.registry import Component, Provider

REAL = "real"  # the Gaussian's term
MOST_ROUNDS, SETTLED = 1000, 1e-9  # of EM: how many, and the change from the one before that ends it


class Fit(NamedTuple):
    """A Gaussian of the real columns and the probabilities of each other column's states, in float64."""

    mean: Tensor  # (R,)
    covariance: Tensor  # (R, R)
    shares: list[Tensor]  # S of (states,)


class Sums(NamedTuple):
    """Of the values, O an offset, of one pattern: what the likelihood of a Gaussian depends on."""

    pattern: np.ndarray  # (R,)
    rows: int
    total: np.ndarray  # (O,)
    products: np.ndarray  # (O, O)

    def plus(self, other: Sums) -> Sums:
        return Sums(self.pattern, self.rows + other.rows, self.total + other.total, self.products + other.products)


def static_gaussian(data: Prepared, *, like: SequenceModel | None = None) -> SequenceModel:
    """The most likely model without memory: full covariance, constant probabilities, of the training split.

    Missing values are marginalised. Its units are those of `like`, else of the data's own scaling. Raises `DataError`
    without training records, and where their real columns have no Gaussian density.
    """
    data.check_trainable()
    sums, shares = statistics(data)
    mean, covariance = gaussian(sums, len(data.mean))
    if not np.linalg.det(covariance) > 1e-12:
        raise DataError(
            f"the real columns of {data.provenance.dataset} have no Gaussian density over the training split: "
            "one is constant, is always missing, or follows from the others."
        )
    shift, scale = (np.array(like.mean), np.array(like.std)) if like is not None else (data.mean, data.std)
    mean, covariance = (
        (mean * data.std + data.mean - shift) / scale,
        covariance * np.outer(data.std / scale, data.std / scale),
    )
    fit = Fit(torch.from_numpy(mean), torch.from_numpy(covariance), [torch.from_numpy(share) for share in shares])
    provider = Provider("heads", "static", lambda size, columns: Static(size, columns, fit), components.CORE)
    head = Component("heads", "static", {}, provider)
    return SequenceModel.for_data(data, components.encoder("memoryless"), head, like=like)


def statistics(data: Prepared) -> tuple[list[Sums], list[np.ndarray]]:
    """Of the training offsets: the sums of normalised values by pattern, and the shares of each column's states.

    A state that training lacks counts as half a point, so that it is not impossible.
    """
    real = np.array([column.kind == "real" for column in data.columns])
    sums: dict[bytes, Sums] = {}
    counts = [np.zeros(column.states) for column in data.columns if column.states is not None]
    for record in data.split("train"):
        offsets = data.offsets(record)
        values = (offsets[:, real].astype(np.float64) - data.mean) / data.std
        for found in by_pattern(values):
            key = found.pattern.tobytes()
            sums[key] = sums[key].plus(found) if key in sums else found
        for count, states in zip(counts, offsets[:, ~real].T.astype(int), strict=True):
            count += np.bincount(states, minlength=len(count))
    seen = [np.maximum(count, 0.5) for count in counts]
    return list(sums.values()), [count / count.sum() for count in seen]


def by_pattern(values: np.ndarray) -> Iterator[Sums]:
    """The sums of values (N, R), NaN where one is missing, that have some."""
    there = ~np.isnan(values)
    for pattern in np.unique(there, axis=0):
        if pattern.any():
            rows = values[(there == pattern).all(axis=1)][:, pattern]
            yield Sums(pattern, len(rows), rows.sum(axis=0), rows.T @ rows)


def gaussian(sums: Sequence[Sums], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (R,) and covariance (R, R) of largest likelihood, by EM; a column that is never there has variance 0."""
    seen = np.any([each.pattern for each in sums], axis=0) if sums else np.zeros(size)
    mean, covariance = np.zeros(size), np.diag(np.ones(size) * seen)
    for _ in range(MOST_ROUNDS if size else 0):
        before = np.append(mean, covariance)
        mean, covariance = refitted(sums, mean, covariance)
        if np.allclose(before, np.append(mean, covariance), rtol=0, atol=SETTLED):
            break
    return mean, covariance


def refitted(sums: Sequence[Sums], mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round of EM: the moments of all values, the missing ones as expected given those that are there."""
    count, total, products = 0, np.zeros_like(mean), np.zeros_like(covariance)
    for pattern, rows, present, squares in sums:
        known = covariance[np.ix_(pattern, pattern)]
        weights = covariance[:, pattern] @ np.linalg.pinv(known)  # expected = weights @ there + constant
        weights[pattern] = np.eye(len(known))
        constant = mean - weights @ mean[pattern]
        expected, cross = weights @ present, np.outer(weights @ present, constant)
        left = covariance - weights @ known @ weights.T  # of the variance of the missing ones
        count += rows
        total += expected + rows * constant
        products += weights @ squares @ weights.T + cross + cross.T + rows * (np.outer(constant, constant) + left)
    mean = total / max(1, count)
    return mean, products / max(1, count) - np.outer(mean, mean)


class Constant(Distribution):
    """The same for every step, whose features (B, T, F) are; computed in float64, on the CPU, which always has it."""

    def __init__(self, columns: tuple[Column, ...], fit: Fit, features: Tensor) -> None:
        self.columns, self.fit, self.features = columns, fit, features
        self.real = [index for index, column in enumerate(columns) if column.kind == "real"]
        self.others = [index for index in range(len(columns)) if index not in self.real]

    def terms(self, targets: Tensor) -> dict[str, Tensor]:
        """Log-densities (B, T): "real" for the Gaussian of the values that are there, other columns by their names."""
        points = targets.double().cpu()
        terms = {REAL: self._log_normal(points[..., self.real])} if self.real else {}
        for index, share in zip(self.others, self.fit.shares, strict=True):
            terms[self.columns[index].name] = share.log()[points[..., index].long()]
        return {name: term.to(targets) for name, term in terms.items()}

    def sample(self, noise: Tensor, bias: float = 0.0) -> Tensor:
        """Draws (B, T, D) from uniform noise (B, T, D); `bias` divides the standard deviations by exp(bias)."""
        uniform, drawn = noise.double().cpu().clamp(1e-9, 1 - 1e-9), torch.empty_like(noise)
        normals = math.sqrt(2) * torch.erfinv(2 * uniform[..., self.real] - 1) * math.exp(-bias)
        factor = torch.linalg.cholesky(self.fit.covariance)
        drawn[..., self.real] = (self.fit.mean + normals @ factor.T).to(noise)
        for index, share in zip(self.others, self.fit.shares, strict=True):
            states = torch.searchsorted(share.cumsum(0), uniform[..., index].contiguous())
            drawn[..., index] = states.clamp(max=len(share) - 1).to(noise)
        return drawn

    def mean(self) -> Tensor:
        """Means, probabilities of binary columns, of a category its most frequent value (B, T, D)."""
        point = torch.zeros(len(self.columns), dtype=torch.float64)
        point[self.real] = self.fit.mean
        for index, share in zip(self.others, self.fit.shares, strict=True):
            point[index] = share[1] if self.columns[index].kind == "binary" else share.argmax()
        return point.to(self.features).expand(*self.features.shape[:2], -1)

    def sigmas_at(self, targets: Tensor) -> Tensor | None:
        sigmas = self.fit.covariance.diagonal().sqrt()
        return sigmas.to(targets).expand(*targets.shape[:2], -1) if self.real else None

    def _log_normal(self, x: Tensor) -> Tensor:
        """The Gaussian's log-density (B, T) at the values of x (B, T, R) that are not NaN."""
        there, density = ~x.isnan(), torch.zeros_like(x[..., 0])
        for pattern in there.flatten(0, 1).unique(dim=0):
            if pattern.any():
                rows = (there == pattern).all(-1)
                normal = MultivariateNormal(self.fit.mean[pattern], self.fit.covariance[pattern][:, pattern])
                density[rows] = normal.log_prob(x[rows][:, pattern])
        return density


class Static(Head):
    """The head that has nothing to learn; raises `UsageError` for a column that has the name of the Gaussian's term."""

    def __init__(self, input_size: int, columns: Sequence[Column], fit: Fit) -> None:
        super().__init__(input_size, columns)
        self.fit, self.noise_size = fit, len(self.columns)
        if len(fit.mean) and any(column.name == REAL and column.kind != "real" for column in self.columns):
            raise UsageError(f"the static Gaussian calls the loss of the real columns {REAL!r}: rename that column.")

    def forward(self, features: Tensor) -> Constant:
        return Constant(self.columns, self.fit, features)
