"""The contract of a data set.

T points of a record, D columns of a point.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from seqdens.cache import Prepared
from seqdens.datasets.base import SPLITS, Dataset, Record, Skipped, Source
from seqdens.offsets import to_offsets, to_points
from seqdens.prepare import checked, load, prepare
from seqdens.registry import Component
from seqdens.shards import all_of
from seqdens.testing.components import ComponentContract, refused

JUNK = b"\x00\xff what a disk may leave of a file \xfe\n"


class DatasetContract(ComponentContract):
    """A data set: the same records whenever it is read, points that keep to their columns, bad files that cost little.

    >>> import seqdens
    >>> class TestHershey(DatasetContract):
    ...     dataset = seqdens.dataset("hershey", lines=6, writers=3)
    >>> TestHershey().test_reading_again_gives_equal_records(root=None)

    A data set that reads files overrides `make_files`, which writes a few small ones, all of them sound and with
    something to train on; one that generates its records does not. `damage` breaks a file, by default by writing
    junk over it; a data set of one large file overrides it, to break one record in the middle.
    """

    kind: ClassVar[str] = "datasets"
    dataset: Component

    def make_files(self, root: Path) -> None:
        """Write sound files into the empty folder `root`."""

    def damage(self, root: Path) -> None:
        """Break something in the files of `root`."""
        self.open(root).sources()[-1].paths[0].write_bytes(JUNK)

    @property
    def generated(self) -> bool:
        return type(self).make_files is DatasetContract.make_files

    @property
    def component(self) -> Component:
        return self.dataset

    def wired(self, folder: Path) -> tuple[Path | None]:
        if self.generated:
            return (None,)
        root = folder / "data"
        root.mkdir()
        self.make_files(root)
        return (root,)

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path | None:
        """The folder of sound files; None for a generator."""
        return self.wired(tmp_path)[0]

    def open(self, root: Path | None) -> Dataset:
        data: Dataset = self.dataset.build(root)
        return data

    def records(self, root: Path | None) -> list[Record]:
        """Of sound files, none of which may be skipped."""
        items = read(self.open(root))
        assert [item for item in items if isinstance(item, Skipped)] == []
        return [item for item in items if isinstance(item, Record)]

    def test_sources_have_names_and_an_order_of_their_own(self, root: Path | None) -> None:
        data = self.open(root)
        sources = data.sources()
        names = [source.name for source in sources]
        assert sources, f"{self.name}: there are no sources"
        assert all(isinstance(source, Source) for source in sources), f"{self.name}: sources must be seqdens.Source"
        assert len(set(names)) == len(names), f"{self.name}: names of sources are not unique: {names}"
        assert {source.split for source in sources} <= set(SPLITS), f"{self.name}: splits are {', '.join(SPLITS)}"
        assert data.sources() == sources, f"{self.name}: sources differ when they are listed again"
        assert self.open(root).sources() == sources, f"{self.name}: sources differ in a data set made anew"
        for path in (path for source in sources for path in source.paths):
            assert path.is_file(), f"{self.name}: a source names {path}, which is no file"
        assert self.generated != any(source.paths for source in sources), (
            f"{self.name}: sources name the files that they read"
        )

    def test_columns_are_told_apart(self, root: Path | None) -> None:
        columns = self.open(root).columns
        names = [column.name for column in columns]
        assert names, f"{self.name}: there are no columns"
        assert all(isinstance(name, str) and name for name in names), f"{self.name}: columns need names, not {names}"
        assert len(set(names)) == len(names), f"{self.name}: names of columns are not unique: {names}"
        for column in columns:
            assert column.kind in ("real", "binary", "category"), f"{self.name}: there is no such kind: {column}"
            assert column.kind != "category" or column.size > 1, f"{self.name}: a category has two values: {column}"
            assert column.kind == "real" or not column.difference, (
                f"{self.name}: only real columns have differences: {column}"
            )
            assert column.role == "" or column.kind == "binary", f"{self.name}: an end is a binary column: {column}"

    def test_what_it_says_of_itself(self, root: Path | None) -> None:
        data = self.open(root)
        data.sources()
        version, name = data.reader_version, data.record_name
        assert type(version) is int, f"{self.name}: reader_version is {version!r}, but must be a whole number"
        assert version > 0, f"{self.name}: reader_version is {version}, but must be at least 1"
        assert type(data.synthetic) is bool, f"{self.name}: synthetic is {data.synthetic!r}, but must be True or False"
        assert name == name.strip().lower() != "", (
            f"{self.name}: record_name is {name!r}, but must be a noun, as 'line'"
        )
        for note in getattr(data, "notes", ()):
            assert isinstance(note, str) and note and "\n" not in note, (  # noqa: PT018
                f"{self.name}: a note is {note!r}, but must be one line"
            )

    def test_reading_again_gives_equal_records(self, root: Path | None) -> None:
        """In another order, by a copy as in a worker process, and by a data set made anew."""
        data = self.open(root)
        sources = data.sources()
        expected = {source.name: told(data, source) for source in sources}
        copy, copies = pickle.loads(pickle.dumps((data, sources)))
        np.random.seed(1)
        for again, order in ((data, sources), (copy, copies[::-1]), (self.open(root), sources)):
            for source in order:
                for first, second in zip_longest(expected[source.name], told(again, source)):
                    name = (first or second)[0]
                    same = first == second
                    assert same, f"{self.name}: {name} differs when it is read again"

    def test_records_keep_to_their_columns(self, root: Path | None) -> None:
        data = self.open(root)
        for record in self.records(root):
            kept = checked(record, data.columns)
            assert isinstance(kept, Record), f"{self.name}: record {record.id!r} would be skipped: {kept.reason}"
            for column, values in zip(data.columns, np.asarray(record.points, float).T, strict=True):
                assert column.name not in ("x", "y") or np.isfinite(values).all(), (
                    f"{self.name}: {column.name} of record {record.id!r} is not finite"
                )
                assert column.role != "sequence_end" or not values[:-1].any(), (
                    f"{self.name}: record {record.id!r} goes on after its end"
                )

    def test_records_say_whose_they_are(self, root: Path | None) -> None:
        records = self.records(root)
        ids = [record.id for record in records]
        assert all(isinstance(name, str) and name for name in ids), f"{self.name}: an id is no text, or empty"
        assert len(set(ids)) == len(ids), f"{self.name}: ids of records are not unique"
        assert {record.split for record in records} <= set(SPLITS), f"{self.name}: splits are {', '.join(SPLITS)}"
        assert "train" in {record.split for record in records}, f"{self.name}: there is nothing to train on"
        for record in records:
            for text in (record.text, record.group, record.label):
                assert isinstance(text, str), f"{self.name}: {text!r} of record {record.id!r} is no text"

    def test_prepared_offsets_give_the_points_back(self, root: Path | None, tmp_path: Path) -> None:
        prepared = load(self.name, root=root, cache=tmp_path / "cache", **self.dataset.options)
        records = self.records(root)
        assert list(prepared.ids) == [record.id for record in records]
        assert list(prepared.texts) == [record.text for record in records]
        for split in SPLITS:
            assert prepared.split(split).tolist() == [i for i, record in enumerate(records) if record.split == split]
        differenced = [column.difference for column in prepared.columns]
        for index, record in enumerate(records):
            offsets = prepared.offsets(index)
            np.testing.assert_array_equal(offsets, to_offsets(record.points, prepared.columns).astype(np.float32))
            points = np.asarray(record.points, float)
            back = to_points(offsets, prepared.columns) + points[0] * differenced
            first = len(points) - len(offsets)
            np.testing.assert_allclose(back[first:], points[first:], rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(points)))

    def test_it_is_read_once(self, root: Path | None, tmp_path: Path) -> None:
        read_first, read_second, rebuilt = list[int](), list[int](), list[str]()
        first = prepare(self.dataset, root, folder=tmp_path / "cache", progress=counting(read_first))
        second = prepare(
            self.dataset, root, folder=tmp_path / "cache", progress=counting(read_second), note=rebuilt.append
        )
        assert read_first, f"{self.name}: preparing reads no source"
        assert first.path == second.path, f"{self.name}: it is prepared to another place the second time"
        assert read_second == [], f"{self.name}: it is prepared anew without need: {rebuilt}"

    @pytest.mark.parametrize("total", [2, 5])
    def test_shards_make_up_the_whole(self, root: Path | None, tmp_path: Path, total: int) -> None:
        """Prepared apart and in another order, they are one data set, equal to that prepared as one."""
        whole = prepare(self.dataset, root, folder=tmp_path / "whole")
        for shard in reversed(all_of(total)):
            prepare(self.dataset, root, folder=tmp_path / "shards", shard=shard)
        joined = prepare(self.dataset, root, folder=tmp_path / "shards")
        assert len(joined.paths) == total
        wanted, found = contents(whole), contents(joined)
        different = [name for name in wanted if found[name] != wanted[name]]
        assert not different, f"{self.name}: in {total} shards it has other {' and '.join(different)}"

    @pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
    def test_a_folder_that_is_not_its_own_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        with refused(str(tmp_path / name)):
            self.open(tmp_path / name).sources()

    def test_without_a_folder_it_says_what_it_needs(self) -> None:
        if self.generated:
            assert self.open(None).sources(), f"{self.name}: there are no sources"
            return
        with refused(self.name, "--data"):
            self.open(None)

    def test_a_damaged_file_costs_only_itself(self, root: Path | None) -> None:
        if root is None:
            return
        before = {record.id: record for record in self.records(root)}
        files = {path for source in self.open(root).sources() for path in source.paths}
        self.damage(root)
        items = read(self.open(root))
        check_skipped(items)
        after = [item for item in items if isinstance(item, Record)]
        for record in after:
            same = np.array_equal(record.points, before[record.id].points, equal_nan=True)
            assert same, f"{self.name}: record {record.id!r} differs where another file is damaged"
        assert after or len(files) == 1, f"{self.name}: one damaged file costs all others"

    def test_a_file_that_is_gone_since_it_was_listed_is_skipped(self, root: Path | None) -> None:
        data = self.open(root)
        for source in data.sources()[:1] if root else ():
            source.paths[0].unlink()
            check_skipped(list(data.read(source)))


def read(data: Dataset) -> list[Record | Skipped]:
    return [item for source in data.sources() for item in data.read(source)]


def told(data: Dataset, source: Source) -> list[tuple[str, Any]]:
    """What is read from a source, to be compared: what to call each item, and all of it."""
    return [
        (f"what is skipped of {item.path}", item)
        if isinstance(item, Skipped)
        else (
            f"record {item.id!r}",
            vars(item) | {"points": (item.points.dtype.str, item.points.shape, item.points.tobytes())},
        )
        for item in data.read(source)
    ]


def contents(prepared: Prepared) -> dict[str, Any]:
    """All that a prepared data set says, by name, to be compared."""
    offsets = [prepared.offsets(index) for index in range(len(prepared))]
    return {
        "points": np.concatenate(offsets).tobytes(),
        "lengths": prepared.lengths_of(prepared.split("all")).tolist(),
        "splits": [prepared.split(split).tolist() for split in SPLITS],
        "texts": [list(prepared.ids), list(prepared.texts), list(prepared.groups), list(prepared.labels)],
        "skipped files": prepared.skipped,
        "statistics": [prepared.mean.tolist(), prepared.std.tolist()],
        "alphabet": prepared.alphabet,
        "types": prepared.integer,
        "provenance": prepared.provenance,
    }


def counting(done: list[int]) -> Callable[[int, int], None]:
    return lambda sources, total: done.append(sources)


def check_skipped(items: list[Record | Skipped]) -> None:
    """Something is, and what is has a name and a reason of one line."""
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert skipped, "a file that cannot be read must be skipped with a reason"
    for item in skipped:
        assert item.path, f"what is skipped has no name: {item}"
        assert item.reason and "\n" not in item.reason, (  # noqa: PT018
            f"{item.path} is skipped for {item.reason!r}, but a reason is one line"
        )
