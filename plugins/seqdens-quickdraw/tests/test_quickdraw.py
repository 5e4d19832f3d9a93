"""The data set and its experiment: by the contracts of seqdens, each form of file, each option, real files."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqdens_quickdraw.quickdraw as module
from seqdens_quickdraw import QuickDraw
from seqdens_quickdraw.experiments import SKETCH
from seqdens_quickdraw.quickdraw import split_of

import seqdens
from seqdens.testing import DatasetContract, ExperimentContract

REAL = Path(__file__).parents[4] / "shared" / "data" / "quickdraw"
SQUARE = np.array([[0, 0], [255, 0], [255, 255], [0, 255], [0, 0]])


def write_ndjson(path: Path, word: str, count: int, *, raw: bool = False, first: int = 0) -> None:
    """Squares of any size, and a dash in them; every third was not recognised."""
    with path.open("w") as file:
        for key in range(first, first + count):
            strokes = [SQUARE // (key % 3 + 1), np.array([[20, 30 + key % 7], [60, 30]])]
            drawing = [[*stroke.T.tolist()] for stroke in strokes]
            if raw:
                drawing = [[*stroke.T.tolist(), (7 + 10 * np.arange(len(stroke))).tolist()] for stroke in strokes]
            about = {"word": word, "countrycode": "AT", "recognized": key % 3 > 0, "key_id": str(key)}
            file.write(json.dumps(about | {"drawing": drawing}) + "\n")


def write_npz(path: Path, **counts: int) -> None:
    arrays = {}
    for split, count in counts.items():
        arrays[split] = np.empty(count, object)
        for index in range(count):
            arrays[split][index] = np.array([[index, 2, 0], [3, 4, 1], [5, -6, 1]], np.int16)
    np.savez_compressed(path, **arrays)


def read(root: Path, **options: Any) -> list[seqdens.Record | seqdens.Skipped]:
    data = QuickDraw(root, **options)
    return [item for source in data.sources() for item in data.read(source)]


def records(root: Path, **options: Any) -> list[seqdens.Record]:
    items = read(root, **options)
    assert [item for item in items if isinstance(item, seqdens.Skipped)] == []
    return [item for item in items if isinstance(item, seqdens.Record)]


class TestQuickDraw(DatasetContract):
    dataset = seqdens.dataset("quickdraw")
    impossible = (
        ("limit", -1),
        ("epsilon", -0.5),
        ("epsilon", 1e9),
        ("held_out", 1.5),
        ("variants", 0),
        ("words", ("apple", "apple")),
    )

    def make_files(self, root: Path) -> None:
        write_ndjson(root / "apple.ndjson", "apple", 12)
        write_ndjson(root / "full_raw_star.ndjson", "star", 12, raw=True, first=100)
        write_npz(root / "sketchrnn_cat.npz", train=5, valid=2, test=1)


class TestDamagedLines(DatasetContract):
    dataset = seqdens.dataset("quickdraw", words=("apple",), variants=2)

    def make_files(self, root: Path) -> None:
        write_ndjson(root / "apple.ndjson", "apple", 30)

    def damage(self, root: Path) -> None:
        path = root / "apple.ndjson"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 30 :])


class TestTimes(DatasetContract):
    dataset = seqdens.dataset("quickdraw", time=True, epsilon=0.0)

    def make_files(self, root: Path) -> None:
        write_ndjson(root / "star.ndjson", "star", 20, raw=True)


class TestSketch(ExperimentContract):
    experiment = "sketch"
    settings = (
        "dataset.variants=3",
        "dataset.held_out=0",
        "encoder.hidden_size=8",
        "sampling.steps=10",
        "sampling.count=2",
    )

    def make_files(self, root: Path) -> None:
        write_ndjson(root / "star.ndjson", "star", 20)


def test_simplified_drawings_are_kept_as_they_are(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "apple.ndjson", "an apple", 1)
    (record,) = records(tmp_path, held_out=0)
    assert (record.id, record.text, record.group, record.split) == ("0", "an apple", "an apple", "train")
    assert record.points.dtype == np.int32
    assert record.points[:, :2].tolist() == [*SQUARE.tolist(), [20, 30], [60, 30]]
    assert record.points[:, 2].tolist() == [0, 0, 0, 0, 1, 0, 1]
    assert record.points[:, 3].tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_raw_drawings_are_brought_to_the_size_of_simplified_ones(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "apple.ndjson", "apple", 3, raw=True)
    kept = records(tmp_path, epsilon=0, time=True)
    assert [len(record.points) for record in kept] == [7, 7, 7]
    assert all(record.points[:5, :2].tolist() == SQUARE.tolist() for record in kept)
    assert kept[1].points[:, 2].tolist() == [0, 10, 20, 30, 40, 0, 10]
    assert [len(record.points) for record in records(tmp_path, epsilon=250)] == [5, 5, 5]


def test_npz_drawings_are_sums_of_their_offsets(tmp_path: Path) -> None:
    write_npz(tmp_path / "sketchrnn_alarm%20clock.full.npz", train=2, valid=0, test=1)
    found = records(tmp_path)
    assert [(record.id, record.split) for record in found] == [
        ("alarm clock-train-0", "train"),
        ("alarm clock-train-1", "train"),
        ("alarm clock-test-0", "test"),
    ]
    assert {record.text for record in found} == {record.group for record in found} == {"alarm clock"}
    assert found[1].points.tolist() == [[1, 2, 0, 0], [4, 6, 1, 0], [9, 0, 1, 1]]
    assert [record.split for record in records(tmp_path, held_out=0)] == ["train", "train"]


@pytest.mark.parametrize("name", ["cat.ndjson", "full_raw_cat.ndjson", "full_simplified_cat.NDJSON", "cat.full.npz"])
def test_a_word_is_what_its_file_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_npz(path, train=3, valid=1, test=1) if path.suffix == ".npz" else write_ndjson(path, "cat", 3)
    assert records(tmp_path, words=("cat",))
    with pytest.raises(seqdens.DataError, match="no drawings of 'dog'; it has cat"):
        QuickDraw(tmp_path, words=("cat", "dog")).sources()
    write_ndjson(tmp_path / "full_raw_cat.ndjson.part", "cat", 3)
    assert len(QuickDraw(tmp_path).sources()) == (3 if path.suffix == ".npz" else 1)


def test_two_files_of_a_word_are_refused(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 3)
    write_ndjson(tmp_path / "full_raw_cat.ndjson", "cat", 3, raw=True)
    with pytest.raises(seqdens.DataError, match=r"'cat' twice, cat.ndjson and full_raw_cat.ndjson; keep one\."):
        QuickDraw(tmp_path).sources()


def test_words_are_read_in_the_order_given(tmp_path: Path) -> None:
    for first, word in enumerate(("ant", "bee", "cow")):
        write_ndjson(tmp_path / f"{word}.ndjson", word, 2, first=10 * first)
    assert [record.text for record in records(tmp_path, words=("cow", "ant"))] == ["cow", "cow", "ant", "ant"]


def test_only_recognised_drawings_if_asked_for(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 9)
    assert [record.id for record in records(tmp_path, recognised=True)] == ["1", "2", "4", "5", "7", "8"]


def test_a_limit_counts_drawings_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 9)
    write_npz(tmp_path / "dog.npz", train=9, valid=2, test=5)
    monkeypatch.setattr(module, "BLOCK", 300)
    names = [record.id for record in records(tmp_path, limit=3)]
    assert names[:3] == ["0", "1", "2"]
    assert [name.rpartition("-")[0] for name in names[3:]] == ["dog-train"] * 3 + ["dog-valid"] * 2 + ["dog-test"] * 3
    assert len(records(tmp_path, limit=100)) == 9 + 16


def test_what_an_npz_file_does_not_tell_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "cat.npz", train=3, valid=1, test=1)
    for option in ("recognised", "time"):
        with pytest.raises(seqdens.DataError, match=f"{option!r} of quickdraw is true, but .*cat.npz"):
            QuickDraw(tmp_path, **{option: True}).sources()


def test_times_are_wanted_of_raw_drawings_alone(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 1)
    (skipped,) = read(tmp_path, time=True)
    assert isinstance(skipped, seqdens.Skipped)
    assert skipped.reason == "it has no times, which only raw drawings have"


def test_splits_follow_keys_and_grow_into_each_other() -> None:
    keys = [str(key) for key in range(4000)]
    splits = [split_of(key, 0.1) for key in keys]
    shares = [splits.count(split) / len(keys) for split in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.015)
    held_out = [(key, split) for key, split in zip(keys[:50], splits[:50], strict=True) if split != "train"]
    assert held_out == [("9", "valid"), ("39", "test"), ("49", "valid")], "keys stay where they are, on any machine"
    more = [split_of(key, 0.2) for key in keys]
    assert all(later != "train" for split, later in zip(splits, more, strict=True) if split != "train")
    assert {split_of(key, 0.0) for key in keys} == {"train"}
    assert "train" not in {split_of(key, 1.0) for key in keys}


def test_variants_are_of_training_drawings_and_depend_on_nothing_else(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 40)
    path = tmp_path / "cat.ndjson"
    lines = [json.loads(line) | {"drawing": [SQUARE.T.tolist()]} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, lines)))
    (once, more) = (records(tmp_path, held_out=0.4, variants=count) for count in (1, 3))
    originals = {record.id: record for record in once}
    for record in more:
        key, _, variant = record.id.partition("/")
        same = np.array_equal(record.points[:, :2], originals[key].points[:, :2])
        assert (record.split, record.text) == (originals[key].split, "cat")
        assert same == (not variant)
        assert record.split == "train" or not variant
    counts = {split: sum(record.split == split for record in once) for split in ("train", "valid", "test")}
    bent = [record.points[:5, :2].tolist() for record in more if record.id.endswith("/1")]
    assert all(each != other for each, other in pairwise(bent)), "each drawing is bent in its own way"
    assert all(counts.values())
    assert len(more) == 3 * counts["train"] + counts["valid"] + counts["test"]


@pytest.mark.parametrize("block", [1, 37, 500, 100_000])
def test_however_large_blocks_are_the_records_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    write_ndjson(tmp_path / "cat.ndjson", "cat", 5)
    write_npz(tmp_path / "dog.npz", train=7, valid=2, test=1)
    expected = [(record.id, record.points.tolist()) for record in records(tmp_path)]
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "BLOCK_OF_DRAWINGS", block)
    assert [(record.id, record.points.tolist()) for record in records(tmp_path)] == expected


def test_a_file_larger_than_memory_is_listed_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cat.ndjson"
    write_ndjson(path, "cat", 3)
    with path.open("ab") as file:
        file.truncate(1 << 34)
    data = QuickDraw(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened := refuse())
        sources = data.sources()
    assert not opened.calls
    assert len(sources) == (1 << 34) // module.BLOCK
    assert {source.end - source.start for source in sources} == {module.BLOCK}
    first = list(data.read(sources[0]))
    assert [item.id for item in first[:3]] == ["0", "1", "2"]
    assert [item.reason for item in first[3:]] == ["the line has 1048576 bytes or more"]
    assert list(data.read(sources[-1])) == []


class refuse:
    """A function that must not be called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: object) -> object:
        self.calls += 1
        raise AssertionError("it is read")


def test_bad_lines_are_skipped_with_their_place_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "cat.ndjson"
    write_ndjson(path, "cat", 2)
    good = path.read_bytes().splitlines(keepends=True)
    point = good[0].replace(b"[[[", b'[[[1], [2]]], "_": [[[')
    path.write_bytes(good[0] + b"\n \r\n" + b"{}\n" + point + good[1][:-5] + b"\n" + good[1])
    items = read(tmp_path)
    offsets = [len(good[0]) + 4, len(good[0]) + 7, len(good[0]) + 7 + len(point)]
    assert [getattr(item, "id", "") for item in items] == ["0", "", "", "", "1"]
    assert [item.path for item in items[1:4]] == [f"{path}, byte {offset}" for offset in offsets]
    reasons = ["`word`", "it has one point", "truncated"]
    for wanted, item in zip(reasons, items[1:4], strict=True):
        assert wanted in item.reason


def test_an_empty_file_is_skipped_and_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "ant.ndjson").touch()
    (tmp_path / "bee.npz").touch()
    write_ndjson(tmp_path / "cat.ndjson", "cat", 2)
    items = read(tmp_path)
    assert [item.reason for item in items[:2]] == ["is empty", "train cannot be read: File is not a zip file"]
    assert [getattr(item, "id", "") for item in items[-2:]] == ["0", "1"]


def test_an_npz_file_that_would_run_something_is_skipped(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "proof",)

    write_npz(tmp_path / "cat.npz", train=3, valid=1, test=1)
    with np.load(tmp_path / "cat.npz", allow_pickle=True) as arrays:
        train = arrays["train"]
        train[1] = Exploit()
        np.savez(tmp_path / "cat.npz", **{**arrays, "train": train})
    skipped, *others = read(tmp_path)
    assert isinstance(skipped, seqdens.Skipped)
    assert "asks for" in skipped.reason
    assert [getattr(record, "split", "") for record in others] == ["valid", "test"]
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.zeros((4, 2), int), "is not rows of three numbers"),
        (np.full((4, 3), 1e20), "its rows lead beyond 32 bits"),
        (np.full((4, 3), np.nan), "its rows lead beyond 32 bits"),
    ],
)
def test_one_bad_array_costs_itself(tmp_path: Path, rows: np.ndarray, reason: str) -> None:
    write_npz(tmp_path / "cat.npz", train=3, valid=1, test=1)
    with np.load(tmp_path / "cat.npz", allow_pickle=True) as arrays:
        train = arrays["train"]
        train[1] = rows
        np.savez(tmp_path / "cat.npz", **{**arrays, "train": train})
    items = read(tmp_path)
    assert [getattr(item, "id", "") for item in items[:3]] == ["cat-train-0", "", "cat-train-2"]
    assert items[1] == seqdens.Skipped(f"{tmp_path / 'cat.npz'}, train[1]", reason)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real drawings are not beside the repository")
def test_real_drawings_are_all_read() -> None:
    found = records(REAL)
    lines = sum(len(path.read_bytes().splitlines()) for path in REAL.glob("*.ndjson"))
    assert len(found) == lines > 0
    assert {record.text for record in found} == {path.stem for path in REAL.glob("*.ndjson")}
    for record in found:
        size = np.ptp(record.points[:, :2], axis=0).max()
        assert 230 < size <= 255.001, record.id
    every = [len(record.points) for record in records(REAL, epsilon=0, time=True)]
    few = [len(record.points) for record in found]
    assert sum(every) > 3 * sum(few)


def test_the_quick_preset_holds_nothing_out_and_the_readme_evaluates_what_there_is(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "apple.ndjson", "apple", 40)
    data = seqdens.load("quickdraw", root=tmp_path, cache=tmp_path / "cache", **SKETCH.presets["quick"]["dataset"])
    assert len(data.split("train")) == len(data) == 40 * 100
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "seqdens evaluate apple --split train" in readme
    assert "seqdens plot density apple --split train" in readme


@pytest.mark.parametrize("name", ["cat.npz", "cat.ndjson"])
def test_a_link_out_of_the_folder_is_skipped(tmp_path: Path, name: str) -> None:
    write_npz(tmp_path / "cat.npz", train=3, valid=1, test=1)
    write_ndjson(tmp_path / "cat.ndjson", "cat", 3)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(tmp_path / name)
    reasons = [getattr(item, "reason", "") for item in read(tmp_path / "data")]
    assert all(reason.startswith("is a link that leads out of the folder") for reason in reasons)
