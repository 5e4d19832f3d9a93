"""Records to data files and back; malformed files are errors in a sentence."""

import json
import os
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lxml import etree
from PIL import Image

from seqdens.datasets.base import SEQUENCE_END, Column, X, Y
from seqdens.drawing import COLUMNS, strokes
from seqdens.errors import DataError, UsageError
from seqdens.export import load_ink, save_records

DATA = (".npz", ".csv", ".json")
RECORD = np.array([[1, 2, 0], [0.1, -0.3, 1], [5, 0, 0]], np.float32)
MORE = (
    Column("pen force", "real", difference=True),
    Column("tilt", "real"),
    Column("digit", "category", 7),
    Column("up", "binary", role="stroke_end"),
    Column("dx", "real"),
)


def records_with(columns):
    """One to four records (T, D) float32 that fit the columns."""
    values = {
        "real": st.floats(-1e6, 1e6, width=32),
        "binary": st.sampled_from([0, 1]),
        "category": st.integers(0, 6),
    }

    def record(length):
        parts = [arrays(np.float32, (length, 1), elements=values[column.kind]) for column in columns]
        return st.tuples(*parts).map(np.hstack)

    return st.lists(st.integers(1, 8).flatmap(record), min_size=1, max_size=4)


@pytest.mark.parametrize("suffix", DATA)
@pytest.mark.parametrize("columns", [COLUMNS, (Y, SEQUENCE_END, *MORE, X)], ids=["handwriting", "many"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_saved_is_loaded(tmp_path_factory, suffix, columns, data):
    records = data.draw(records_with(columns))
    path = save_records(records, tmp_path_factory.mktemp("ink") / f"ink{suffix}", columns=columns)
    loaded = load_ink(path)
    assert loaded.columns == columns
    assert [record.dtype for record in loaded.records] == [np.float32] * len(records)
    assert len(loaded.records) == len(records)
    for record, same in zip(records, loaded.records, strict=True):
        np.testing.assert_array_equal(record, same)


def test_npz_is_flat_and_needs_no_pickle(tmp_path):
    with np.load(save_records([RECORD, RECORD[:1]], tmp_path / "ink.npz"), allow_pickle=False) as archive:
        assert archive["starts"].tolist() == [0, 3, 4]
        assert archive["columns"].tolist() == ["x", "y", "stroke_end"]
        np.testing.assert_array_equal(archive["offsets"], np.concatenate([RECORD, RECORD[:1]]))


def test_csv_names_changes_and_positions(tmp_path):
    text = save_records([RECORD, RECORD[:1]], tmp_path / "ink.csv").read_text()
    assert text.splitlines() == [
        "record,step,dx,dy,stroke_end,x,y",
        "0,1,1,2,0,1,2",
        "0,2,0.1,-0.3,1,1.1,1.7",
        "0,3,5,0,0,6.1,1.7",
        "1,1,1,2,0,1,2",
    ]


def test_json_holds_offsets_and_strokes(tmp_path):
    (drawing,) = json.loads(save_records([RECORD], tmp_path / "ink.json").read_bytes())
    assert drawing["columns"] == ["x", "y", "stroke_end"]
    assert drawing["offsets"][1] == [0.1, -0.3, 1]
    expected = [stroke.round(4).tolist() for stroke in strokes(RECORD)]
    assert drawing["strokes"] == expected


def test_drawings_are_saved_through_the_same_door(tmp_path):
    svg = save_records([RECORD], tmp_path / "ink.svg", title="a title", captions=["a caption"])
    assert etree.parse(svg).getroot()[0].text == "a title"
    for suffix in ("PNG", "GIF"):
        with Image.open(save_records([RECORD], tmp_path / f"ink.{suffix}")) as image:
            assert image.format == suffix


@pytest.mark.parametrize("suffix", [".txt", ""])
def test_another_suffix_is_an_error_that_lists_the_formats(tmp_path, suffix):
    with pytest.raises(UsageError, match=r"\.svg, \.png, \.gif, \.npz, \.csv, \.json"):
        save_records([RECORD], tmp_path / f"ink{suffix}")
    with pytest.raises(UsageError, match=r"must be one of \.npz, \.csv, \.json"):
        load_ink(tmp_path / f"ink{suffix}")


@pytest.mark.parametrize("suffix", DATA)
@pytest.mark.parametrize(
    ("record", "message"),
    [
        (np.zeros((0, 3)), r"record 1 is float64 \(0, 3\)"),
        (np.zeros((4, 2)), r"must be numbers \(T, 3\)"),
        (np.full((2, 3), "a"), "must be numbers"),
        ([[0, 0, 0], [0, np.nan, 0]], "record 1 has nan in row 1 of column 'y', which must be finite"),
        ([[1e300, 0, 0]], "inf in row 0 of column 'x'"),
        ([[3e38, 0, 0], [3e38, 0, 0]], "inf in row 1 of column 'x'"),
        ([[0, 0, 0.5]], "0.5 in row 0 of column 'stroke_end', which must be a whole number from 0 to 1"),
    ],
)
def test_unfit_records_are_refused_and_the_file_kept(tmp_path, suffix, record, message):
    path = save_records([RECORD], tmp_path / f"ink{suffix}")
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        save_records([RECORD, record], path)
    with pytest.raises(UsageError, match="no records"):
        save_records([], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", DATA)
def test_a_failure_while_writing_keeps_what_was_there(tmp_path, suffix, monkeypatch):
    path = save_records([RECORD], tmp_path / "new" / f"ink{suffix}")
    before = path.read_bytes()

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match=r"cannot write .*ink.*No space left"):
        save_records([RECORD[:1]], path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", DATA)
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(DataError, match=r"cannot load .*ink.*No such file"):
        load_ink(tmp_path / f"ink{suffix}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must begin with 'record,step,'"),
        ("a;b\n1;2\n", "first line must begin"),
        ("record,step,dx,dy,stroke_end\n", "no records"),
        ("record,step,dx,dy,ink\n0,1,1,1,1\n", "'ink' is not a column"),
        ("record,step,dx,dx\n0,1,1,1\n", "two columns of one name"),
        ("record,step,dx,dy,stroke_end\n0,1,1,one,0\n", "'one'"),
        ("record,step,dx,dy,stroke_end\n0,1,1,nan,0\n", "nan in row 0 of column 'y'"),
        ("record,step,dx,dy,stroke_end\n0,1,1,1,2\n", "2.0 in row 0 of column 'stroke_end'"),
        ("record,step,dx,dy,stroke_end\n0,1,1,1,0\n0,3,1,1,0\n", "line 3 must have 5 fields, and steps"),
        ("record,step,dx,dy,stroke_end\n0,1,1,1,0\n0,2,1,1\n", "line 3 must have 5 fields"),
        ("record,step,dx,dy,stroke_end\n\n0,1,1,1,0\n", "line 2 must have 5 fields"),
        ("record,step\n0,1\n", "record 0"),
        ("\udcff\udcfe", "codec can't decode"),
    ],
)
def test_malformed_csv_is_an_error(tmp_path, text, message):
    path = tmp_path / "ink.csv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=f"cannot load .*ink.csv.*{message}"):
        load_ink(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated"),
        ("[]", "no records"),
        ("{}", "Expected `array`"),
        ('[{"offsets": [[1, 1, 0]]}]', "missing required field `columns`"),
        ('[{"columns": ["x", "y", "stroke_end"]}]', "missing required field `offsets`"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": []}]', "record 0"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, 1]]}]', r"record 0 is float64 \(1, 2\)"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, 1, 0], [1]]}]', "inhomogeneous"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, "1", 0]]}]', "Expected `float`, got `str`"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, null, 0]]}]', "Expected `float`, got `null`"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, NaN, 0]]}]', "invalid"),
        ('[{"columns": ["x", "y", "stroke_end"], "offsets": [[1, 1e300, 0]]}]', "inf in row 0"),
        ('[{"columns": ["x", "y", "z"], "offsets": [[1, 1, 0]]}]', "'z' is not a column"),
        ('[{"columns": ["x"], "offsets": [[1]]}, {"columns": ["y"], "offsets": [[1]]}]', "differ in their columns"),
        ('[{"more": ' + "[" * 100_000, "recursion"),
    ],
)
def test_malformed_json_is_an_error(tmp_path, text, message):
    path = tmp_path / "ink.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"cannot load .*ink.json.*{message}"):
        load_ink(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offsets": None}, "it has no array 'offsets'"),
        ({"starts": None}, "it has no array 'starts'"),
        ({"columns": None}, "it has no array 'columns'"),
        ({"offsets": np.zeros(3)}, r"'offsets' has shape \(3,\)"),
        ({"offsets": np.zeros((3, 4))}, r"must be numbers \(T, 3\)"),
        ({"offsets": np.full((3, 3), "1")}, "must be numbers"),
        ({"offsets": np.full((3, 3), 1j)}, "must be numbers"),
        ({"offsets": np.full((3, 3), np.nan)}, "nan in row 0 of column 'x'"),
        ({"offsets": np.array([[0, {}, 0]] * 3)}, "its array 'offsets' holds objects"),
        ({"starts": np.array([0, 2])}, "must rise from 0 to the 3 rows"),
        ({"starts": np.array([0, 2, 2, 3])}, "must rise"),
        ({"starts": np.array([0, 9, 3])}, "must rise"),
        ({"starts": np.array([0.0, 3.0])}, "'starts' is float64"),
        ({"starts": np.array([0])}, "'starts' is"),
        ({"columns": np.array([1, 2, 3])}, "'columns' is int64"),
        ({"columns": np.array(["x", "y", "pen"])}, "'pen' is not a column"),
    ],
)
def test_malformed_npz_is_an_error(tmp_path, changed, message):
    good = {"offsets": RECORD, "starts": np.array([0, 3]), "columns": np.array(["x", "y", "stroke_end"])}
    path = tmp_path / "ink.npz"
    np.savez(path, **{name: value for name, value in (good | changed).items() if value is not None})
    with pytest.raises(DataError, match=f"cannot load .*ink.npz.*{message}"):
        load_ink(path)


def test_an_array_and_a_pickle_are_not_archives(tmp_path):
    path = tmp_path / "ink.npz"
    with path.open("wb") as file:
        np.save(file, RECORD)
    with pytest.raises(DataError, match="one array, not an archive"):
        load_ink(path)
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="cannot load"):
        load_ink(path)


@pytest.mark.parametrize("suffix", DATA)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_never_a_crash(tmp_path_factory, suffix, data):
    path = save_records([RECORD, RECORD[:2]], tmp_path_factory.mktemp("ink") / f"ink{suffix}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(DataError):
        assert all(np.isfinite(record).all() for record in load_ink(path).records)
