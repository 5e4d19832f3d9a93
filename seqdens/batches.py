"""Batches of records of like length, padded, in a seeded order.

B records, T offsets of the longest, D columns, U characters of the longest text. A rank is one of the processes
that train together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqdens.cache import Prepared
from seqdens.text import encode

POOL = 64  # batches drawn together and sorted by length among themselves
SORTED = 1 << 18  # records that evaluation sorts by length together, so that memory does not grow with the data


class Batch(NamedTuple):
    """Padded offsets in raw units with what belongs to them."""

    points: Tensor  # (B, T, D) float32, zeros in the padding
    lengths: Tensor  # (B,)
    text: Tensor  # (B, U) indices into an alphabet
    text_lengths: Tensor  # (B,)
    records: Tensor  # (B,) indices into the data set

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: not padding."""
        return torch.arange(self.points.shape[1], device=self.points.device) < self.lengths.unsqueeze(1)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def order(
    records: np.ndarray, lengths_of: Callable[[np.ndarray], np.ndarray], batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Batches of `records`, shuffled: each record once, like lengths together. Rearranges `records`, copies nothing."""
    rng.shuffle(records)
    for start in range(0, len(records), batch_size * POOL):
        pool = records[start : start + batch_size * POOL]
        pool[:] = pool[np.argsort(lengths_of(pool), kind="stable")]
    for batch in rng.permutation(-(-len(records) // batch_size)):
        yield records[batch * batch_size : (batch + 1) * batch_size]


def collate(data: Prepared, records: Sequence[int] | np.ndarray, alphabet: str | None = None) -> Batch:
    """The batch of these records, their texts as indices into `alphabet`, by default the data set's.

    Raises `UsageError` for a character that is not in it.
    """
    records = np.asarray(records)
    lengths = data.lengths_of(records)
    points = np.zeros((len(records), int(lengths.max(initial=0)), len(data.columns)), np.float32)
    for row, record in enumerate(records):
        data.offsets(record, out=points[row, : lengths[row]])
    text, text_lengths = encode(
        [data.texts[record] for record in records], data.alphabet if alphabet is None else alphabet
    )
    arrays = (points, lengths.astype(np.int64), text, text_lengths, np.asarray(records, np.int64))
    return Batch(*map(torch.from_numpy, arrays))


def training_batches(
    data: Prepared,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int = 0,
    *,
    rank: int = 0,
    ranks: int = 1,
    alphabet: str | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch of the training split, in an order fixed by seed and epoch, from the `skip`-th on.

    Of each batch, which `batch_size` is of, rank `rank` of `ranks` gets every `ranks`-th record: a share may be empty.
    `alphabet` as for `collate`.
    """
    batches = order(data.split("train"), data.lengths_of, batch_size, np.random.default_rng([seed, epoch]))
    for records in islice(batches, skip, None):
        yield collate(data, records[rank::ranks], alphabet)


def evaluation_batches(
    data: Prepared, records: np.ndarray, batch_size: int, alphabet: str | None = None
) -> Iterator[Batch]:
    """Batches of `records` from short to long, so that little is padding; of many, one part after the other.

    `alphabet` as for `collate`.
    """
    part = max(1, SORTED // batch_size) * batch_size
    for first in range(0, len(records), part):
        ordered = records[first : first + part]
        ordered = ordered[np.argsort(data.lengths_of(ordered), kind="stable")]
        for start in range(0, len(ordered), batch_size):
            yield collate(data, ordered[start : start + batch_size], alphabet)
