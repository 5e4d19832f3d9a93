"""Shards: parts of a data set, prepared apart, that hold its sources in their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from seqdens.datasets.base import Source
from seqdens.errors import UsageError


class Shard(NamedTuple):
    """Part `number` of `total`, from 1.

    >>> Shard.parse("2/8"), str(Shard(2, 8)), Shard(2, 8).path(Path("ink.h5")).name
    (Shard(number=2, total=8), '2/8', 'ink.2-of-8.h5')
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`I/N` as a shard; raises `UsageError` for what is none."""
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        if not found or int(found[1]) > int(found[2]):
            raise UsageError(
                f"shard {text!r} must read I/N, part I of N from 1/N to N/N and N at most 999999, such as 2/8."
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def path(self, whole: Path) -> Path:
        """Its cache, beside that of the whole."""
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.total}{whole.suffix}")

    def missing_beside(self, path: Path) -> list[Shard]:
        """The other shards that have no cache yet beside that of this one, which is `path`."""
        whole = path.with_name(path.name.replace(f".{self.number}-of-{self.total}.", "."))
        return [shard for shard in all_of(self.total) if not shard.path(whole).exists()]

    def share(self, sources: Sequence[Source], sizes: Sequence[int]) -> list[Source]:
        """Its sources, which follow each other: those whose middle lies in its share of the bytes of all.

        `sizes` are the bytes of each source's files, or 0.
        """
        weights = [max(1, size) for size in sizes]
        all_bytes, ends = sum(weights), accumulate(weights)
        places = ((2 * end - weight) * self.total // (2 * all_bytes) for end, weight in zip(ends, weights, strict=True))
        return [source for source, place in zip(sources, places, strict=True) if place == self.number - 1]


def all_of(total: int) -> list[Shard]:
    """The shards that make up a data set, in their order."""
    return [Shard(number, total) for number in range(1, total + 1)]


def totals_found(whole: Path) -> list[int]:
    """Each N for which a shard I/N lies beside the cache `whole` of the data set, rising."""
    number = r"[1-9]\d{0,5}"
    pattern = re.compile(rf"{re.escape(whole.stem)}\.{number}-of-({number}){re.escape(whole.suffix)}", re.ASCII)
    names = [path.name for path in whole.parent.iterdir()] if whole.parent.is_dir() else []
    return sorted({int(found[1]) for name in names if (found := pattern.fullmatch(name))})
