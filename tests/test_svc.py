"""SVC2004: signatures on disk, what the button column means, the split by user, and files that are damaged."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.datasets.base import Record, Skipped
from seqdens.datasets.svc import SVC2004, parse
from seqdens.errors import DataError, UsageError

TASK1 = [(635, 5541, 310, 0), (618, 5431, 320, 1), (600, 5443, 330, 1), (700, 5000, 420, 0), (710, 5010, 430, 5)]
TASK2 = [(*row, 1550, 710, 400 + n) for n, row in enumerate(TASK1)]


def add(folder, name, rows=TASK1, count=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.TXT"
    lines = [str(len(rows) if count is None else count), *(" ".join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def read_all(data):
    items = [item for source in data.sources() for item in data.read(source)]
    records = [item for item in items if isinstance(item, Record)]
    return records, [item for item in items if isinstance(item, Skipped)]


@pytest.fixture
def task1(tmp_path):
    """Users 1, 2, 12, 33 and 37, each with two genuine signatures and a forgery."""
    for user in (1, 2, 12, 33, 37):
        for signature in (1, 3, 21):
            add(tmp_path / "Task1", f"U{user}S{signature}")
    return tmp_path / "Task1"


@pytest.fixture
def task2(tmp_path):
    add(tmp_path / "Task2", "U1S1", TASK2)
    return tmp_path / "Task2"


def test_a_signature_is_its_points_user_and_label(task1):
    records, skipped = read_all(SVC2004(task1))
    assert skipped == []
    assert [record.id for record in records[:3]] == ["U1S1", "U1S3", "U1S21"]
    assert [record.label for record in records[:3]] == ["genuine", "genuine", "forged"]
    assert [record.group for record in records[::3]] == ["U1", "U2", "U12", "U33", "U37"]
    assert [record.split for record in records[::3]] == ["train", "train", "train", "valid", "test"]
    assert records[0].points.dtype == np.int32


def test_y_is_turned_to_point_down_and_button_0_begins_a_stroke(task1):
    data = SVC2004(task1)
    assert [column.name for column in data.columns] == ["x", "y", "stroke_end", "sequence_end"]
    assert [column.role for column in data.columns] == ["", "", "stroke_end", "sequence_end"]
    expected = [[635, -5541, 0, 0], [618, -5431, 0, 0], [600, -5443, 1, 0], [700, -5000, 0, 0], [710, -5010, 1, 1]]
    np.testing.assert_array_equal(read_all(data)[0][0].points, expected)


@pytest.mark.parametrize("hover", [2, 4])
def test_samples_in_the_air_are_left_out_and_part_strokes(tmp_path, hover):
    buttons = [hover, 0, 3, hover, hover, 1, 1, 0, 0, hover]
    add(tmp_path, "U1S1", [(n, 0, n, button) for n, button in enumerate(buttons)])
    points = read_all(SVC2004(tmp_path))[0][0].points
    assert points[:, 0].tolist() == [1, 2, 5, 6, 7, 8]
    assert points[:, 2].tolist() == [0, 1, 0, 1, 1, 1]
    assert points[:, 3].tolist() == [0, 0, 0, 0, 0, 1]


def test_channels_become_columns_in_the_order_asked_for(task2):
    data = SVC2004(task2, channels=("pressure", "time"))
    assert [column.name for column in data.columns] == ["x", "y", "pressure", "time", "stroke_end", "sequence_end"]
    assert [column.difference for column in data.columns] == [True, True, False, True, False, False]
    points = read_all(data)[0][0].points
    assert points[:, 2].tolist() == [400, 401, 402, 403, 404]
    assert points[:, 3].tolist() == [0, 10, 20, 110, 120]


@pytest.mark.parametrize("channels", [("pressure",), ("time", "azimuth"), ("altitude",)])
def test_channels_that_task_1_lacks_are_refused(task1, channels):
    with pytest.raises(DataError, match=rf"Task 1, which has no {channels[-1]}; name the folder Task2"):
        SVC2004(task1, channels=channels).sources()


def test_time_is_in_task_1_too(task1):
    assert read_all(SVC2004(task1, channels=("time",)))[0][0].points[:, 2].tolist() == [0, 10, 20, 110, 120]


def test_a_file_without_the_channels_of_the_others_is_skipped(task2):
    path = add(task2, "U1S2", TASK1)
    records, skipped = read_all(SVC2004(task2, channels=("pressure",)))
    assert [record.id for record in records] == ["U1S1"]
    assert skipped == [Skipped(str(path), "has 4 columns, so no pressure")]


@pytest.mark.parametrize(("signatures", "names"), [("genuine", {"S1", "S3"}), ("forged", {"S21"})])
def test_genuine_or_forged_signatures_alone(task1, signatures, names):
    records, _ = read_all(SVC2004(task1, signatures=signatures))
    assert {record.id.removeprefix(record.group) for record in records} == names
    assert {record.label for record in records} == {signatures}


def test_file_names_may_be_in_lower_case_and_other_files_are_ignored(tmp_path):
    add(tmp_path, "U1S1").rename(tmp_path / "u10s2.txt")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "xU1S1.TXT").write_text("hello")
    assert [record.id for record in read_all(SVC2004(tmp_path))[0]] == ["U10S2"]


DAMAGED = {
    "empty": ("", "line 1 is '', but 0 points follow"),
    "count": ("6\n1 2 3 0\n1 2 3 1\n", "line 1 is '6', but 2 points follow"),
    "truncated": ("3\n1 2 3 0\n1 2 3 1\n1 2\n", "line 4 has 2 columns"),
    "header": ("x y\n1 2 3 0\n", "line 1 is 'x y', not whole numbers"),
    "no header": ("1 2 3 0\n1 2 3 1\n", "line 1 is '1 2 3 0', but 1 points follow"),
    "five columns": ("2\n1 2 3 0 5\n1 2 3 1 5\n", "line 2 has 5 columns; all lines have 4"),
    "two kinds": ("2\n1 2 3 0\n1 2 3 1 7 8 9\n", "line 3 has 7 columns"),
    "blank line": ("3\n1 2 3 0\n\n1 2 3 1\n", "line 3 has 0 columns"),
    "no number": ("2\n1 2 3 0\n1 2x 3 1\n", "line 3 is '1 2x 3 1', not whole numbers"),
    "NUL": ("2\n1 2 3 0\n1 \0 3 1\n", "line 3 is"),
    "infinite": ("2\n1 2 3 0\n1 inf 3 1\n", "line 3 is '1 inf 3 1', not whole numbers"),
    "too large": ("2\n1 2 3 0\n1 -2147483648 3 1\n", "line 3 has a number beyond 32 bits"),
    "no points": ("0\n", "has 0 point(s) with the pen down"),
    "in the air": ("3\n1 2 3 0\n1 2 3 2\n1 2 3 4\n", "has 1 point(s) with the pen down: nothing to predict"),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("name", ["U1S1.TXT", "U1S3.TXT"])
def test_a_damaged_file_is_skipped_with_its_reason_and_its_neighbours_are_read(task1, name, content, reason):
    (task1 / name).write_text(content)
    records, skipped = read_all(SVC2004(task1))
    assert [skip.path for skip in skipped] == [str(task1 / name)]
    assert reason in skipped[0].reason
    assert len(records) == 14


def test_a_file_that_is_gone_since_it_was_listed_is_skipped(task2):
    data = SVC2004(task2)
    (source,) = data.sources()
    source.paths[0].unlink()
    assert list(data.read(source)) == [Skipped(str(source.paths[0]), "cannot be read: No such file or directory")]


@settings(deadline=None)
@given(st.integers(0, 60), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_bytes_give_rows_or_a_reason(at, inserted, removed):
    content = "5\n" + "".join(" ".join(map(str, row)) + "\n" for row in TASK1)
    damaged = content[:at] + inserted.decode("iso-8859-1") + content[at + removed :]
    try:
        result = parse(damaged)
    except ValueError as error:
        result = str(error)
    assert result.startswith("line ") if isinstance(result, str) else result.shape == (5, 4)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda root: None, "nowhere", "nowhere is not a folder; .*Task1 or Task2"),
        (lambda root: (root / "file").touch(), "file", "file is not a folder"),
        (lambda root: None, ".", "holds no signatures; .*U1S1.TXT to U40S40.TXT"),
        (lambda root: (root / "lineStrokes" / "a01").mkdir(parents=True), ".", "holds no signatures"),
        (lambda root: (add(root / "Task1", "U1S1"), add(root / "Task2", "U1S1")), ".", "Task1 and Task2; name one"),
    ],
)
def test_a_folder_that_is_not_the_data_set_is_refused(tmp_path, make, name, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        SVC2004(tmp_path / name).sources()


def test_a_folder_without_the_signatures_asked_for_is_refused(task2):
    with pytest.raises(DataError, match="holds no forged signatures"):
        SVC2004(task2, signatures="forged").sources()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--data DIR .*Task1 or Task2"),
        ({"root": Path(), "signatures": "genuin"}, "did you mean 'genuine'"),
        ({"root": Path(), "channels": ("presure",)}, "did you mean 'pressure'"),
        ({"root": Path(), "channels": ("time", "time")}, "'time', unknown or given twice"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SVC2004(**options)


def test_real_folder_holds_every_signature():
    if not os.environ.get("SEQDENS_SVC2004"):
        pytest.skip("SEQDENS_SVC2004 names no folder of SVC2004 (Task1 or Task2)")
    records, skipped = read_all(SVC2004(Path(os.environ["SEQDENS_SVC2004"])))
    assert skipped == []
    splits = Counter((record.split, record.label) for record in records)
    assert splits == {
        (split, label): users * 20
        for split, users in (("train", 32), ("valid", 4), ("test", 4))
        for label in ("genuine", "forged")
    }
    assert {len(records[0].points[0]), *(record.points[:, -1].sum() for record in records)} == {4, 1}
    assert min(len(record.points) for record in records) >= 80
    assert max(len(record.points) for record in records) <= 793
