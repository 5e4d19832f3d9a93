"""From a data set to its cache: which file it is, whether it is stale, and reading in several processes.

A data set can be prepared in shards, on as many machines; they are then opened as one.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shlex
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache, cached_property, partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from seqdens.cache import Prepared, Provenance, check_any, write
from seqdens.components import CORE
from seqdens.components import dataset as dataset_component
from seqdens.datasets.base import SPLITS, Column, Dataset, Record, Skipped, Source, check_columns
from seqdens.errors import DataError, SeqdensError
from seqdens.files import clear_leftovers
from seqdens.interrupts import uninterrupted
from seqdens.offsets import to_offsets
from seqdens.registry import Component, one_line
from seqdens.shards import Shard, all_of, totals_found

MAX_SKIPPED = 0.05  # share of what is read that may fail
AHEAD = 4  # sources a process that are read before they are written, so that memory does not grow with the data
MENTIONED = 10  # shards named in a sentence
FORK = "fork" in multiprocessing.get_all_start_methods()

Progress = Callable[[int, int], None]  # sources done, sources in all


def load(name: str, *, root: str | Path | None = None, cache: str | Path | None = None, **options: Any) -> Prepared:
    """The data set `name` with its options, prepared if it is not yet (or no more), memory-mapped.

    `root` is the folder of its files, `cache` where prepared files live (default: `SEQDENS_CACHE`, else the
    user's cache folder). Raises `UsageError` for unknown names and options, `DataError` for unusable files.

    >>> import seqdens
    >>> data = seqdens.load("hershey", lines=6, writers=3)
    >>> len(data), [len(data.split(name)) for name in ("train", "valid", "test")]
    (6, [2, 2, 2])
    >>> [column.name for column in data.columns], data.offsets(0).shape[1]
    (['x', 'y', 'stroke_end'], 3)
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
    rebuild: bool = False,
    shard: Shard | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """The cache of a data set, built where it is missing or its provenance differs.

    `verify` compares the contents of the sources and not only names and sizes, `rebuild` builds it whatever is
    there; `note` is told, in a sentence, why a cache is rebuilt, that the code of an installed package is newer,
    and what the data set wants said. `shard` is the part to prepare; without it, shards that are there
    are opened as one. Raises `DataError` where shards are missing or stale, more than the share
    `max_skipped` cannot be read, a reader fails, no record is there, or the folder cannot be
    written; what was prepared before then stays.
    """
    plan = _Plan(component, root, folder, verify)
    for line in getattr(plan.data, "notes", ()):
        note(line)
    if shard and shard.total == 1:
        shard = None
    if shard and max_skipped:
        max_skipped = 1.0  # what share of all cannot be read is known when all shards are there
    clear_leftovers(plan.path(shard))
    prepared = None if rebuild else plan.find(shard, note)
    if prepared is not None:
        if component.provider.owner != CORE and _changed_since(prepared.path, type(plan.data)):
            note(
                f"the code of {component.name} ({component.provider.owner}) is newer than {prepared.path}; if it reads "
                f"otherwise now: seqdens prepare {component.name} --rebuild."
            )
        prepared.check_skipped(max_skipped)
        return prepared
    sources = plan.share(shard)
    with closing(_read_all(plan.data, sources, workers, progress or (lambda done, total: None))) as items:
        return write(plan.path(shard), plan.wanted(shard), items, max_skipped=max_skipped)


class _Plan:
    """What the caches of a data set, as a whole or of shards, are to be made from and where they lie."""

    def __init__(self, component: Component, root: str | Path | None, folder: str | Path | None, verify: bool) -> None:
        self.component, self.root, self.folder, self.verify = component, root, folder, verify
        self.data: Dataset = component.build(Path(root) if root is not None else None)
        check_columns(component.name, self.data.columns)
        self.sources = self.data.sources()
        options = component.describe() | {"root": str(Path(root).resolve()) if root is not None else None}
        self.about = Provenance.of(
            component.name,
            self.data.reader_version,
            options,
            self.data.columns,
            self.data.synthetic,
            digest_names(self.sources),
            record_name=self.data.record_name,
        )
        self.whole = cache_folder(folder) / f"{component.name}-{_digest(self.about.options)[:12]}.h5"

    @cached_property
    def sizes(self) -> list[int]:
        """The bytes of each source's files."""
        return [sum(map(_size, source.paths)) for source in self.sources]

    def path(self, shard: Shard | None) -> Path:
        return shard.path(self.whole) if shard else self.whole

    def share(self, shard: Shard | None) -> Sequence[Source]:
        return shard.share(self.sources, self.sizes) if shard else self.sources

    def wanted(self, shard: Shard | None) -> Provenance:
        contents = digest_contents(self.share(shard)) if self.verify else ""
        return self.about._replace(contents=contents, shard=str(shard or ""))

    def find(self, shard: Shard | None, note: Callable[[str], None]) -> Prepared | None:
        """What is there and up to date; raises `DataError` where only some shards of the whole are."""
        path, divisions = self.path(shard), [] if shard else totals_found(self.whole)
        if not os.path.exists(path):
            return self.join(divisions)
        prepared, fault = _open(path, self.wanted(shard))
        if fault and not divisions:
            note(f"{path} is rebuilt: {fault}.")
        return self.join(divisions) if prepared is None else prepared

    def join(self, divisions: Sequence[int]) -> Prepared | None:
        """The shards of the first of these divisions whose shards are all up to date, as one."""
        refusal = ""
        for total in divisions:
            found = {shard: _open(self.path(shard), self.wanted(shard)) for shard in all_of(total)}
            if faults := {shard: fault for shard, (_, fault) in found.items() if fault}:
                refusal = self.refusal(faults)
                continue
            prepared = Prepared.joined([part for part, _ in found.values() if part is not None])
            check_any(self.component.name, len(prepared))
            return prepared
        if refusal:
            raise DataError(refusal)
        return None

    def refusal(self, faults: Mapping[Shard, str]) -> str:
        """What is wrong with some of the shards, and the commands that mend it."""
        first, name = next(iter(faults)), self.component.name
        each = ", ".join(f"{shard} ({fault})" for shard, fault in [*faults.items()][:MENTIONED])
        more = f" and {len(faults) - MENTIONED} more" if len(faults) > MENTIONED else ""
        return (
            f"{len(faults)} of {first.total} shards of {name} cannot be used: {each}{more}; prepare each with "
            f"`{self.command()} --shard {first}`, or all as one with `{self.command()} --rebuild`."
        )

    def command(self) -> str:
        """The command that prepares the data set."""
        known = self.component.provider.options()
        given = {name: value for name, value in self.component.options.items() if value != known[name].default}
        words = ["seqdens", "prepare", self.component.name]
        words += ["--data", str(self.root)] if self.root is not None else []
        for name, value in given.items():
            text = value if isinstance(value, str) else json.dumps(value, separators=(", ", " = "), default=str)
            words += ["--set", f"{name}={text}"]  # as TOML, in which a table is written so
        words += ["--cache", str(self.folder)] if self.folder else []
        return shlex.join(words)


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where prepared data sets live: `folder`, else `SEQDENS_CACHE`, else the user's cache folder."""
    if chosen := folder or os.environ.get("SEQDENS_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("seqdens"))


def digest_names(sources: Sequence[Source]) -> str:
    """Digest of the sources' names, splits, file names and file sizes."""
    digest = hashlib.sha256()
    for number, source in enumerate(sources):  # as JSON of all, which for many sources would be large
        files = [(path.name, _size(path)) for path in source.paths]
        digest.update((", " if number else "[").encode() + json.dumps((source.name, source.split, files)).encode())
    digest.update(b"]" if sources else b"[]")
    return digest.hexdigest()[:16]


def digest_contents(sources: Sequence[Source]) -> str:
    """Digest of what is in the sources' files."""
    content = cache(_content)  # a large file may be that of many sources
    return _digest(" ".join(content(path) for source in sources for path in source.paths))


def _changed_since(path: Path, code: type) -> bool:
    """Whether the file that holds `code` is newer than `path`."""
    file = getattr(sys.modules.get(code.__module__), "__file__", None)
    return file is not None and os.path.exists(file) and os.path.getmtime(file) > path.stat().st_mtime


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading will report it
        return -1


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # reading will report it
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(path: Path, wanted: Provenance) -> tuple[Prepared | None, str]:
    """The cache at `path` if it is what is wanted, else what is wrong with it."""
    if not os.path.exists(path):
        return None, "missing"
    try:
        prepared = Prepared(path)
    except DataError as error:
        return None, f"it is no complete cache of this version of seqdens ({one_line(error.__cause__ or error)})"
    if not wanted.contents:
        wanted = wanted._replace(contents=prepared.provenance.contents)
    elif not prepared.provenance.contents:
        return None, "the contents of the files were not compared when it was made"
    differences = "; ".join(prepared.provenance.differences(wanted))
    return (None, differences) if differences else (prepared, "")


def _read_all(
    data: Dataset, sources: Sequence[Source], workers: int | None, progress: Progress
) -> Generator[Record | Skipped, None, None]:
    """Every source's offsets in order, read by several processes where there is enough to read."""
    if workers is None:  # without fork, several processes would ask of the caller's script a __main__ guard
        workers = cores() if FORK else 1
    workers = min(workers, max(1, len(sources) // 4))
    progress(0, len(sources))
    read = partial(read_offsets, data)
    one_by_one = (stream_offsets(data, source) for source in sources)  # a source may be larger than memory
    with closing(_in_processes(read, sources, workers) if workers > 1 else one_by_one) as batches:
        for done, items in enumerate(batches, 1):
            yield from items
            progress(done, len(sources))


def _in_processes(
    read: Callable[[Source], list[Record | Skipped]], sources: Sequence[Source], workers: int
) -> Generator[list[Record | Skipped], None, None]:
    """`map(read, sources)`, read a little ahead by forked processes that an interrupt ends at once."""
    try:
        pickle.dumps(read)  # the pool itself may wait for ever for what it could not send
    except Exception as error:
        raise SeqdensError(
            f"the data set cannot be sent to the processes that read it: {one_line(error)}; "
            "give it only attributes that can be pickled, or use one worker."
        ) from error
    context = multiprocessing.get_context("fork" if FORK else None)
    pool = ProcessPoolExecutor(workers, context, _begin_worker)
    pending: deque[Future[list[Record | Skipped]]] = deque()
    try:
        for source in sources:
            with uninterrupted(), warnings.catch_warnings():
                # readers need none of the locks that other threads could hold
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                pending.append(pool.submit(read, source))
            if len(pending) > AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise SeqdensError(
            f"one of {workers} processes that read the data was killed, perhaps for want of memory; use fewer workers."
        ) from error
    except BaseException:
        with uninterrupted():  # shutting down would wait for what is being read
            for process in pool._processes.values():
                process.kill()
            pool._result_queue._writer.close()  # type: ignore[attr-defined]  # what one was sending is never complete
        raise
    finally:
        with uninterrupted():
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker() -> None:
    """A process that reads ends at once on an interrupt, and with the one that started it, should that be killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(process: Any) -> None:
    process.join()
    os._exit(1)


def read_offsets(data: Dataset, source: Source) -> list[Record | Skipped]:
    """All that `stream_offsets` gives, as a process can hand it to another."""
    return list(stream_offsets(data, source))


def stream_offsets(data: Dataset, source: Source) -> Iterator[Record | Skipped]:
    """One source's records with offsets for points; a record that breaks its columns' contract is skipped.

    Raises `DataError` where the reader itself fails.
    """
    try:
        for item in data.read(source):
            yield item if isinstance(item, Skipped) else checked(item, data.columns)
    except SeqdensError:
        raise
    except Exception as error:
        owner = f"{type(data).__module__}.{type(data).__name__}"
        raise DataError(f"{owner} failed to read {source.name!r}: {one_line(error)}") from error


def checked(record: Record, columns: Sequence[Column]) -> Record | Skipped:
    """The record with offsets for points, or why it is none."""
    if not isinstance(record, Record):
        raise TypeError(f"read gave {type(record).__name__}, but must give Record or Skipped")
    for name in ("id", "text", "group", "label"):
        if not isinstance(text := getattr(record, name), str):
            return Skipped(str(record.id), f"{name} is {text!r}, but must be a text")
    if record.split not in SPLITS:
        return Skipped(record.id, f"split is {record.split!r}, but must be {' or '.join(SPLITS)}")
    points = np.asarray(record.points)
    if points.ndim != 2 or points.shape[1] != len(columns) or points.dtype.kind not in "biuf":
        names = ", ".join(column.name for column in columns)
        return Skipped(record.id, f"points are {points.dtype} {points.shape}, but the columns are {names}")
    try:
        record.text.encode()
    except UnicodeEncodeError:
        return Skipped(record.id, "its text holds lone surrogates, which are no characters")
    with np.errstate(invalid="ignore", over="ignore"):
        offsets = to_offsets(points, columns)
    if not len(offsets):
        return Skipped(record.id, f"{len(points)} point(s): nothing to predict")
    if points.dtype.kind == "f" and infinite(points, offsets):
        return Skipped(record.id, "a value is infinite, or is as a 32-bit number")
    for column, values in zip(columns, offsets.T, strict=True):
        if column.kind != "real" and not all_states(values, column.states or 0):
            top = (column.states or 0) - 1
            return Skipped(record.id, f"column {column.name!r} has values other than whole numbers of 0..{top}")
    return Record(record.id, offsets, record.split, record.text, record.group, record.label)


def all_states(values: np.ndarray, states: int) -> bool:
    """Whether all values are whole numbers from 0 to below `states`."""
    within = values.min() >= 0 and values.max() < states  # neither, with a NaN
    return bool(within and (values.dtype.kind in "iu" or (values == np.round(values)).all()))


def infinite(points: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether a value is, or its offset as a 32-bit number."""
    with np.errstate(over="ignore"):
        return bool(np.isinf(points).any() or np.isinf(offsets.astype(np.float32)).any())
