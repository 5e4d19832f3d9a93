"""Where the pen is predicted to go next, over the page: the predictive densities along one record, added up.

T steps of the record, D columns of a point, N blocks of B x B cells that the page is divided into. Positions are in
raw units, y down, and start at (0, 0).
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seqdens.batches import Batch
from seqdens.errors import UsageError
from seqdens.model import SequenceModel
from seqdens.sampling import evaluating

LONGEST = 10_000  # steps

_CELLS = 300_000
_BLOCK = 10  # B
_WATCHED = 16  # blocks of each step in which every cell is evaluated
_DRAWS = 64  # that tell which
_LEAST = -80.0  # nats, below which a density is none; float32 becomes slow near its own least


class DensityMap(NamedTuple):
    """Densities (H, W) per squared raw unit, in square cells of side `cell` from a corner at (left, top)."""

    values: np.ndarray
    left: float
    top: float
    cell: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top."""
        rows, columns = self.values.shape
        return self.left, self.left + columns * self.cell, self.top + rows * self.cell, self.top


@torch.inference_mode()
def density_map(model: SequenceModel, batch: Batch) -> DensityMap:
    """The densities of each next pen position, given the true ones before it, added up over the steps of one record.

    A step's density is evaluated in every cell of the blocks that its draws fall into and that lie around these,
    elsewhere once a block and interpolated: it integrates to about 1. Raises `UsageError` for real columns
    other than x and y and for a record that is too long.
    """
    _check(model, batch)
    predictions = _Predictions(model, batch)
    page = _Page.around(predictions.reached, 3 * float(model.scale[predictions.xy].max()))
    coarse = torch.stack([predictions.log_density(centre) for centre in page.corners + page.block / 2], dim=1)
    watched = page.busiest([predictions.draw() for _ in range(_DRAWS)])
    fine = [predictions.cells(page.corners[block], page.cell) for block in watched.T]
    total = coarse.new_zeros(page.rows * _BLOCK, page.columns * _BLOCK)
    for blocks, logs, *cells in zip(watched, coarse.view(-1, 1, 1, page.rows, page.columns), *fine, strict=True):
        density = F.interpolate(logs, scale_factor=_BLOCK, mode="bilinear")[0, 0].clamp(min=_LEAST).exp()
        tiles = density.view(page.rows, _BLOCK, page.columns, _BLOCK)
        tiles[blocks // page.columns, :, blocks % page.columns] = torch.stack(cells)
        total += density
    left, top = page.corners[0].tolist()
    return DensityMap(total.cpu().numpy(), left, top, page.cell)


class _Predictions:
    """A model's predictions along the one record of a batch; `reached` (T + 1, 2) is where the pen was."""

    def __init__(self, model: SequenceModel, batch: Batch) -> None:
        self.model, self.points = model, batch.points.clone()
        names = [column.name for column in model.columns]
        self.xy = [names.index("x"), names.index("y")]
        moves = batch.points[0, :, self.xy]
        self.reached = torch.cat([moves.new_zeros(1, 2), moves.cumsum(dim=0)])
        self.states = {column.name for column in model.columns if column.kind != "real"}
        self.log_unit = model.scale[self.xy].log().sum()
        self.random = torch.Generator().manual_seed(0)
        with evaluating(model.modules()):
            self.distribution = model.predict(batch)

    def log_density(self, places: Tensor) -> Tensor:
        """Nats (T,) at places (T, 2) or (2,), per squared raw unit; states, where they matter, are the true ones."""
        self.points[0, :, self.xy] = places - self.reached[:-1]
        terms = self.distribution.terms(self.model.normalise(self.points))
        return torch.stack([term[0] for name, term in terms.items() if name not in self.states]).sum(0) - self.log_unit

    def cells(self, corners: Tensor, cell: float) -> Tensor:
        """The densities (T, B, B) in the cells of a block of each step, from their corners (T, 2)."""
        steps = torch.arange(_BLOCK, device=corners.device)
        insides = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).view(-1, 2)
        places = ((insides + share) * cell for share in (0.25, 0.75))  # two, since a spot can be smaller than a cell
        first, second = (
            torch.stack([self.log_density(corners + place) for place in group], dim=1).clamp(min=_LEAST).exp()
            for group in places
        )
        return (0.5 * (first + second)).view(-1, _BLOCK, _BLOCK)

    def draw(self) -> Tensor:
        """A next position (T, 2) for each step."""
        shape = (1, self.points.shape[1], self.model.head.noise_size)
        noise = torch.rand(shape, generator=self.random).to(self.points.device)
        raw = self.distribution.sample(noise) * self.model.scale + self.model.shift
        return self.reached[:-1] + raw[0, :, self.xy]


class _Page(NamedTuple):
    """The left upper `corners` (N, 2) of square blocks, row by row, and the side of their cells."""

    corners: Tensor
    cell: float
    rows: int
    columns: int

    @classmethod
    def around(cls, places: Tensor, margin: float) -> _Page:
        """About `_CELLS` cells around places (n, 2), with a margin of at least so much."""
        low, high = places.amin(dim=0), places.amax(dim=0)
        margin = max(margin, 0.04 * float((high - low).max()))
        width, height = (high - low + 2 * margin).tolist()
        cell = (width * height / _CELLS) ** 0.5
        rows, columns = ceil(height / (cell * _BLOCK)), ceil(width / (cell * _BLOCK))
        steps = (torch.arange(count, device=places.device) for count in (columns, rows))
        numbers = torch.stack(torch.meshgrid(*steps, indexing="xy"), dim=-1).view(-1, 2)
        return cls(low - margin + numbers * (cell * _BLOCK), cell, rows, columns)

    @property
    def block(self) -> float:
        return self.cell * _BLOCK

    def busiest(self, draws: list[Tensor]) -> Tensor:
        """The numbers (T, `_WATCHED`) of the blocks that most of each step's draws (T, 2) are in, then beside."""
        places = torch.stack(draws, dim=1)
        column, row = ((places - self.corners[0]) / self.block).floor().long().unbind(-1)
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
        number = torch.where(inside, row * self.columns + column, 0)
        hits = places.new_zeros(len(places), len(self.corners)).scatter_add_(1, number, inside.to(places.dtype))
        around = F.avg_pool2d(hits.view(-1, 1, self.rows, self.columns), 3, stride=1, padding=1).flatten(1)
        return (hits + around).topk(min(_WATCHED, len(self.corners))).indices


def _check(model: SequenceModel, batch: Batch) -> None:
    real = [column for column in model.columns if column.kind == "real"]
    if {column.name for column in real} != {"x", "y"} or not all(column.difference for column in real):
        raise UsageError(
            "a density over the page needs a model whose real columns are the offsets x and y alone, "
            f"but this one's are {', '.join(column.name for column in real) or 'none'}."
        )
    if batch.points.shape[1] > LONGEST:
        raise UsageError(
            f"the record has {batch.points.shape[1]:,} points, and a density can be plotted for {LONGEST:,} at most."
        )
