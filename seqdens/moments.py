"""Mean and standard deviation from sums without any rounding, so that parts add up to exactly what the whole gives.

n rows, R columns; NaN is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import msgspec
import numpy as np

EXACT = 2.0**53  # whole numbers below are exact as float64, in whatever order they are added
ABOVE = 2**128  # all numbers of 32 bits are below
TINY = 2.0**-150  # smaller values are 0 as 32-bit numbers, and their squares could not be exact
LOWEST = 1073  # the smallest float64 is half of 2**-1073


def check_scaling(mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray) -> None:
    """Raises `ValueError` where values cannot be scaled by a mean and standard deviation."""
    if not (np.isfinite([*mean, *std]).all() and all(each > 0 for each in std)):
        raise ValueError("its mean is not finite, or its std not above 0")


class Moments(NamedTuple):
    """How many values each column has, their sum and the sum of their squares, all exact."""

    counts: list[int]
    sums: list[Fraction]
    squares: list[Fraction]

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """The moments of float64 (n, R), finite as the 32-bit numbers that they are stored as."""
        columns = [values[~np.isnan(values)] for values in np.where(np.abs(rows) < TINY, 0, rows).T]
        pairs = [exact_sums(values) for values in columns]
        return cls([len(values) for values in columns], [pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def merged(self, other: Moments) -> Moments:
        """Those of both parts together."""
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        sums = [mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True)]
        return Moments(counts, sums, [mine + theirs for mine, theirs in zip(self.squares, other.squares, strict=True)])

    def mean(self) -> np.ndarray:
        """(R,) float64, correctly rounded; 0 where there is no value."""
        return np.array([float(total / max(count, 1)) for count, total, _ in zip(*self, strict=True)])

    def std(self) -> np.ndarray:
        """(R,) float64, the root of the correctly rounded variance; 1 for a column that does not vary."""
        pairs = [(total / max(count, 1), square / max(count, 1)) for count, total, square in zip(*self, strict=True)]
        std = np.array([math.sqrt(square - mean**2) for mean, square in pairs])
        return np.where(std > 1e-12 * np.abs(self.mean()), std, 1.0)

    def give(self, mean: np.ndarray, std: np.ndarray) -> bool:
        """Whether that is their mean and standard deviation."""
        return np.array_equal(self.mean(), mean) and np.array_equal(self.std(), std)

    def to_json(self) -> str:
        """A text that `from_json` reads: lists of counts, and of numerators and denominators."""
        return json.dumps([self.counts, *([part.as_integer_ratio() for part in sums] for sums in self[1:])])

    @classmethod
    def from_json(cls, text: str | bytes) -> Moments:
        """What `to_json` told; raises `ValueError` or `ZeroDivisionError` for what no values have."""
        pairs = list[tuple[int, int]]
        counts, sums, squares = msgspec.convert(json.loads(text), tuple[list[int], pairs, pairs])
        moments = cls(counts, [Fraction(*pair) for pair in sums], [Fraction(*pair) for pair in squares])
        for count, total, square in zip(*moments, strict=True):
            if count < 0 or count * square < total**2 or square > count * ABOVE**2:
                raise ValueError(f"moments {count}, {total}, {square}, which no values have")
        return moments


def exact_sums(values: np.ndarray) -> tuple[Fraction, Fraction]:
    """The sum of values and that of their squares."""
    top = np.abs(values).max(initial=0)
    if top**2 * len(values) < EXACT and (values == np.rint(values)).all():
        return Fraction(values.sum()), Fraction(values @ values)
    squares, remainders = square(values)
    return exact_sum(values), exact_sum(squares) + exact_sum(remainders)


def square(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squares as the sums of two float64, exact for values as large and small as float32 (Dekker 1971)."""
    product = values * values
    scaled = values * (2.0**27 + 1)
    high = scaled - (scaled - values)
    low = values - high
    return product, ((high * high - product) + 2 * high * low) + low * low


def exact_sum(values: np.ndarray) -> Fraction:
    """The sum of at most 2**26 finite float64, whole numbers of 53 bits halves of which add up by power of two."""
    mantissas, powers = np.frexp(values)
    whole = np.ldexp(mantissas, 53)
    upper = np.floor(np.ldexp(whole, -27))
    halves = [np.bincount(powers + LOWEST, half) for half in (upper, whole - np.ldexp(upper, 27))]
    places = np.flatnonzero(np.bincount(powers + LOWEST)).tolist()
    total = sum((int(halves[0][place]) * 2**27 + int(halves[1][place])) << place for place in places)
    return Fraction(total, 1 << (LOWEST + 53))
