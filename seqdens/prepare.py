"""From a data set to its cache: which file it is, whether it is stale, and reading in several processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqdens.cache import Prepared, Provenance, write
from seqdens.components import dataset as dataset_component
from seqdens.datasets.base import Column, Dataset, Record, Skipped, Source
from seqdens.errors import DataError
from seqdens.offsets import to_offsets
from seqdens.registry import Component

MAX_SKIPPED = 0.05  # share of what is read that may fail

Progress = Callable[[int, int], None]  # sources done, sources in all


def load(name: str, *, root: str | Path | None = None, cache: str | Path | None = None, **options: Any) -> Prepared:
    """The data set `name` with its options, prepared if it is not yet (or no more), memory-mapped.

    `root` is the folder of its files, `cache` where prepared files live (default: `SEQDENS_CACHE`, else the
    user's cache folder). Raises `UsageError` for unknown names and options, `DataError` for unusable files.
    """
    return prepare(dataset_component(name, **options), root, folder=cache)


def prepare(
    component: Component,
    root: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    workers: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    verify: bool = False,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """The cache of a data set, built where it is missing or its provenance differs.

    `verify` compares the contents of the sources and not only names and sizes; `note` is told, in a sentence,
    why a cache is rebuilt and what the data set wants said. Raises `DataError` where more than the share
    `max_skipped` cannot be read; what was prepared before then stays.
    """
    data: Dataset = component.build(Path(root) if root is not None else None)
    sources = data.sources()
    for line in getattr(data, "notes", ()):
        note(line)
    options = component.describe() | {"root": str(Path(root).resolve()) if root is not None else None}
    wanted = Provenance.of(
        component.name,
        data.reader_version,
        options,
        data.columns,
        fingerprint(sources, verify),
        data.synthetic,
    )
    path = cache_folder(folder) / f"{component.name}-{_digest(wanted.options)[:12]}.h5"
    if path.exists():
        try:
            prepared = Prepared(path)
        except DataError as error:
            note(f"{error} It is rebuilt.")
        else:
            differences = _stale(prepared.provenance, wanted)
            if not differences:
                return prepared
            note(f"{path} is rebuilt: {'; '.join(differences)}.")
    items = _read_all(data, sources, workers, progress or (lambda done, total: None))
    return write(path, wanted, items, max_skipped=max_skipped)


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where prepared data sets live: `folder`, else `SEQDENS_CACHE`, else the user's cache folder."""
    if chosen := folder or os.environ.get("SEQDENS_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("seqdens"))


def fingerprint(sources: Sequence[Source], contents: bool = False) -> str:
    """Digest of the sources' names, splits and file sizes, with `contents` of the files themselves behind a colon."""
    listing = [
        (source.name, source.split, [(path.name, path.stat().st_size) for path in source.paths]) for source in sources
    ]
    light = _digest(json.dumps(listing))
    if not contents:
        return light
    digest = hashlib.sha256()
    for source in sources:
        for path in source.paths:
            digest.update(path.read_bytes())
    return f"{light}:{digest.hexdigest()}"


def _stale(have: Provenance, wanted: Provenance) -> list[str]:
    if ":" not in wanted.fingerprint:  # contents were compared once, names and sizes are asked for now
        have = have._replace(fingerprint=have.fingerprint.partition(":")[0])
    return have.differences(wanted)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_all(
    data: Dataset, sources: Sequence[Source], workers: int | None, progress: Progress
) -> Iterator[Record | Skipped]:
    """Every source's offsets in order, read by several processes where there is enough to read."""
    workers = min(workers or os.cpu_count() or 1, max(1, len(sources) // 4))
    read = partial(read_offsets, data)
    progress(0, len(sources))
    with _mapper(workers, len(sources)) as mapper:
        for done, items in enumerate(mapper(read, sources), 1):
            yield from items
            progress(done, len(sources))


@contextmanager
def _mapper(workers: int, jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    if workers == 1:
        yield map
        return
    # fork, where there is one: a script without a __main__ guard works, and workers start at once. They only
    # read files and call NumPy, so the threads that newer Pythons warn of hold no lock that they need.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        with ProcessPoolExecutor(workers, context) as pool:
            yield partial(pool.map, chunksize=max(1, min(16, jobs // (4 * workers))))


def read_offsets(data: Dataset, source: Source) -> list[Record | Skipped]:
    """One source's records with offsets for points; a record that breaks its columns' contract is skipped."""
    return [item if isinstance(item, Skipped) else _checked(item, data.columns) for item in data.read(source)]


def _checked(record: Record, columns: Sequence[Column]) -> Record | Skipped:
    if record.points.ndim != 2 or record.points.shape[1] != len(columns):
        names = ", ".join(column.name for column in columns)
        return Skipped(record.id, f"points of shape {record.points.shape}, but the columns are {names}")
    offsets = to_offsets(record.points, columns)
    if not len(offsets):
        return Skipped(record.id, f"{len(record.points)} point(s): nothing to predict")
    if np.isinf(offsets).any():
        return Skipped(record.id, "an infinite value")
    for index, column in enumerate(columns):
        top = {"binary": 2, "category": column.size}.get(column.kind)
        if top is not None and not np.isin(offsets[:, index], np.arange(top)).all():
            return Skipped(record.id, f"column {column.name!r} has values outside 0..{top - 1}")
    return replace(record, points=offsets)
