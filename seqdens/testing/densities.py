"""Integrals over all values of a point, by which a density is compared with 1 and with what is drawn from it.

N places, D columns of a point, R of them real. Real columns are covered in the coordinate u of
x = SPREAD tan(pi(u - 1/2)), which reaches everywhere: by a grid, exact for smooth densities, in one and two dimensions,
by Sobol's sequence in more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from seqdens.datasets.base import Column

SPREAD = 2.0  # of normalised data, about
ALONG = {1: 2**12, 2: 128}  # places along an axis
SCATTERED = 2**16


class Cover(NamedTuple):
    """Places (N, D) and the volume (N,) that each stands for: an integral is the sum of volume times value."""

    places: Tensor
    volumes: Tensor

    def integral(self, values: Tensor) -> Tensor:
        """Of values (N, ...) at the places."""
        return torch.tensordot(self.volumes, values, dims=1)


def cover(columns: Sequence[Column], *, fixed: Tensor | None = None) -> Cover:
    """All values of the columns, or, where a point `fixed` (D,) is given, of its missing ones alone."""
    free = [index for index in range(len(columns)) if fixed is None or fixed[index].isnan()]
    real = [index for index in free if columns[index].states is None]
    u = units(len(real))
    x = SPREAD * torch.tan(math.pi * (u - 0.5))
    volumes = (math.pi * SPREAD * (1 + (x / SPREAD).square())).prod(-1) / len(u)
    states = [index for index in free if index not in real]
    places = []
    for values in product(*(range(columns[index].states or 0) for index in states)):
        place = torch.zeros(len(columns)).double() if fixed is None else fixed.double()
        place = place.expand(len(u), -1).clone()
        place[:, real] = x
        place[:, states] = torch.tensor(values, dtype=place.dtype)
        places.append(place)
    return Cover(torch.cat(places), volumes.repeat(len(places)))


def units(dimensions: int) -> Tensor:
    """Places (N, R) that fill the open unit cube evenly."""
    if dimensions == 0:
        return torch.zeros(1, 0).double()
    if dimensions not in ALONG:
        margin = 1e-6
        drawn = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=0).draw(SCATTERED, dtype=torch.float64)
        return drawn.clamp(margin, 1 - margin)
    axis = (torch.arange(ALONG[dimensions]).double() + 0.5) / ALONG[dimensions]
    return torch.cartesian_prod(*[axis] * dimensions).view(-1, dimensions)


def waves(columns: Sequence[Column], points: Tensor, count: int = 16) -> Tensor:
    """Cosines and sines (N, 2 * count) of points (N, D) along random directions; their means tell densities apart."""
    parts = [
        points[:, index : index + 1]
        if column.states is None
        else torch.nn.functional.one_hot(points[:, index].long(), column.states).to(points.dtype)
        for index, column in enumerate(columns)
    ]
    features = torch.cat(parts, dim=1)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(features.shape[1], count, generator=generator, dtype=torch.float64).to(points.dtype)
    phases = features @ directions
    return torch.cat([phases.cos(), phases.sin()], dim=1)
