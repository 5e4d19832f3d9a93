"""Batches of records of like length, padded, in a seeded order.

B records, T offsets of the longest, D columns, U characters of the longest text. A rank is one of the processes
that train together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqdens.cache import Prepared
from seqdens.text import encode

POOL = 64  # batches drawn together and sorted by length among themselves


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


def order(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of positions into `lengths`, shuffled: each position once, like lengths together."""
    shuffled = rng.permutation(len(lengths))
    pool = batch_size * POOL
    batches = []
    for start in range(0, len(shuffled), pool):
        members = shuffled[start : start + pool]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


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
    records = data.split("train")
    rng = np.random.default_rng([seed, epoch])
    for members in order(data.lengths_of(records), batch_size, rng)[skip:]:
        yield collate(data, records[members[rank::ranks]], alphabet)


def evaluation_batches(
    data: Prepared, records: np.ndarray, batch_size: int, alphabet: str | None = None
) -> Iterator[Batch]:
    """Batches of `records` from short to long, so that little is padding; `alphabet` as for `collate`."""
    ordered = records[np.argsort(data.lengths_of(records), kind="stable")]
    for start in range(0, len(ordered), batch_size):
        yield collate(data, ordered[start : start + batch_size], alphabet)
