"""Tables: what is read of them, what is missing, and what is skipped with a reason."""

import csv
import math
import re
import tracemalloc
from io import StringIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqdens_timeseries.table import MOST_PACKED, Table, number

import seqdens
from seqdens import Column, DataError, Record, Skipped, UsageError
from seqdens.testing import DatasetContract

ROWS = "id,x,y,speed,colour,on\n" + "".join(
    f"{name},{step * step},{-step},{'' if step == 1 else step / 2},{step % 3},{step % 2}\n"
    for name in "abcdefghijklmnopqrst"
    for step in range(4)
)
OPTIONS: dict[str, Any] = {
    "difference": ("x", "y"),
    "real": ("speed",),
    "category": {"colour": 3},
    "binary": ("on",),
    "end": True,
}


class TestFolder(DatasetContract):
    dataset = seqdens.dataset("table", **OPTIONS)
    impossible = (
        ("difference", ("x", "x")),
        ("real", ("sequence_end",)),
        ("delimiter", ""),
        ("delimiter", ";;"),
        ("encoding", "utf-9"),
        ("encoding", "rot13"),
        ("y", "left"),
    )

    def make_files(self, root: Path) -> None:
        (root / "deep").mkdir()
        (root / "one.csv").write_text(ROWS)
        header, *rows = csv.reader(StringIO(ROWS))
        columns = zip(*rows, strict=True)
        np.savez(
            root / "deep" / "two.npz", **{name: np.array(values) for name, values in zip(header, columns, strict=True)}
        )
        (root / "three.CSV").write_text(ROWS)
        (root / "notes.txt").write_text("not a table")


class TestOneFile(DatasetContract):
    dataset = seqdens.dataset("table", difference=("x", "y"))

    def make_files(self, root: Path) -> None:
        (root / "tracks.csv").write_text(ROWS)

    def damage(self, root: Path) -> None:
        (root / "tracks.csv").write_text(ROWS.replace("d,4,", "d,4 metres,"))


def table(path: Path, content: str | None = None, **options: Any) -> Table:
    if content is not None:
        path.write_text(content, newline="")
    return Table(path, **options)


def items(data: Table) -> list[Record | Skipped]:
    return [item for source in data.sources() for item in data.read(source)]


def points(data: Table) -> dict[str, list[list[float]]]:
    """By id, where nothing is skipped."""
    records = items(data)
    assert not [item for item in records if isinstance(item, Skipped)]
    return {record.id.partition(":")[2]: record.points.tolist() for record in records if isinstance(record, Record)}


def skipped(data: Table) -> list[str]:
    return [item.reason for item in items(data) if isinstance(item, Skipped)]


def test_columns_are_in_the_order_of_the_options(tmp_path: Path) -> None:
    assert Table(tmp_path, **OPTIONS).columns == (
        Column("x", "real", difference=True),
        Column("y", "real", difference=True),
        Column("speed", "real"),
        Column("colour", "category", 3),
        Column("on", "binary"),
        Column("sequence_end", "binary", role="sequence_end"),
    )


def test_rows_become_points(tmp_path: Path) -> None:
    found = points(table(tmp_path / "t.csv", "y,id,x\n1,a,2.5\n3,a,4\n5,b,6\n", real=("x", "y"), end=True))
    assert found == {"a": [[2.5, 1, 0], [4, 3, 1]], "b": [[6, 5, 1]]}


@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_whole_numbers_stay_whole(tmp_path: Path, name: str) -> None:
    if name == "t.csv":
        (tmp_path / name).write_text("id,x,n\na,1,0\na,2,1\n")
    else:
        np.savez(tmp_path / name, id=["a", "a"], x=np.array([1, 2], np.uint8), n=np.array([False, True]))
    (record,) = items(Table(tmp_path / name, real=("x",), binary=("n",), end=True))
    assert isinstance(record, Record)
    assert record.points.dtype == np.int64
    assert record.points.tolist() == [[1, 0, 0], [2, 1, 1]]


def test_what_is_missing_is_nan_and_so_are_the_changes_beside_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x,v\n" + "".join(f"a,{x},{x}\n" for x in (1, "", 4, 6, "NA", "nan", "None")))
    data = seqdens.load("table", root=tmp_path, difference=("x",), real=("v",))
    np.testing.assert_array_equal(
        data.offsets(0), np.array([[np.nan, np.nan], [np.nan, 4], [2, 6], *[[np.nan, np.nan]] * 3], np.float32)
    )


@pytest.mark.parametrize("text", ["", " ", "NA", "n/a", "x", "1,5", "0x10", "--1", "1e", "½"])
def test_what_is_no_number_is_missing_or_refused(text: str) -> None:
    try:
        assert math.isnan(number(text))
    except ValueError:
        assert text not in ("", " ", "NA")


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), (" -7 ", -7), ("2.50", 2.5), ("1e3", 1000.0), ("TRUE", 1), ("false", 0), (".5", 0.5)]
)
def test_numbers_are_read(text: str, value: float) -> None:
    assert number(text) == value
    assert type(number(text)) is type(value)


@pytest.mark.parametrize("value", [2**53 + 2, str(2**53 + 2), 10**30, str(10**30)])
def test_numbers_too_large_to_be_exact_are_floats(value: Any) -> None:
    assert type(number(value)) is float


def test_categories_are_numbers_or_texts(tmp_path: Path) -> None:
    category = {"code": 3, "mood": ("low", "so so", "high")}
    content = 'id,code,mood\na,2,high\na,0.0,"so so"\na,1, low\nb,1,High\nc,3,low\nd,,low\ne,1,\n'
    data = table(tmp_path / "t.csv", content, category=category)
    assert items(data)[0].points.tolist() == [[2, 2], [0, 1], [1, 0]]
    assert skipped(data) == [
        "line 5 has 'High' for 'mood', which must be one of low, so so, high",
        *(
            f"line {line} has {text!r} for 'code', which must be a whole number of 0..2: "
            "only real columns can have missing values"
            for line, text in ((6, "3"), (7, ""))
        ),
        "line 8 has '' for 'mood', which must be one of low, so so, high",
    ]


def test_an_empty_field_can_be_a_category_of_its_own(tmp_path: Path) -> None:
    content = "id,gear\na,1\na,\na,2\nb,3\n"
    data = table(tmp_path / "t.csv", content, category={"gear": ("", "1", "2")})
    assert items(data)[0].points.tolist() == [[1], [0], [2]]
    assert skipped(data) == ["line 5 has '3' for 'gear', which must be one of '', 1, 2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1, "gives 'c' 1 categories, but there must be 2 to 65536"),
        (10**9, "gives 'c' 1000000000 categories"),
        (("red",), "gives 'c' 1 categories"),
        (("red", "red "), "gives 'c' a text twice among red, red "),
    ],
)
def test_categories_that_cannot_be_are_refused(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"option 'category' of table {message}"):
        Table(tmp_path, category={"c": given})


@pytest.mark.parametrize("value", ["3", "-1", "0.5", "", "nan", "inf", "red"])
@pytest.mark.parametrize(("options", "top"), [({"category": {"c": 3}}, 2), ({"binary": ("c",)}, 1)])
def test_numbers_that_are_no_state_are_skipped(tmp_path: Path, value: str, options: dict[str, Any], top: int) -> None:
    (tmp_path / "t.csv").write_text("id,c\n" + "".join(f"{n},1\n" for n in range(50)) + f"bad,{value}\n")
    data = seqdens.load("table", root=tmp_path, **options)
    wanted = f"a whole number of 0..{top}: only real columns can have missing values"
    assert data.skipped == [Skipped("t.csv:bad", f"line 52 has {value!r} for 'c', which must be {wanted}")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b,1", "line 3 has 2 fields, but the header 3"),
        ("b,1,2,3", "line 3 has 4 fields, but the header 3"),
        ("b,one,2", "line 3 has 'one' for 'x', which must be a finite number"),
        ("b,1,\ufffd", "line 3 has '\ufffd' for 'y', which must be a finite number"),
        ("b,1,-Inf", "line 3 has '-Inf' for 'y', which must be a finite number"),
        (f"b,1,{'1' * 400}", f"line 3 has '{'1' * 60}' for 'y', which must be a finite number"),
        (" ,1,2", "line 3 has an empty id"),
        ("a,1,2\nb,1,2\na,1,2", "line 5 stands apart from other rows of its id: sort the file"),
    ],
)
def test_a_bad_row_costs_its_sequence_alone(tmp_path: Path, row: str, reason: str) -> None:
    data = table(tmp_path / "t.csv", f"id,x,y\na,0,1\n{row}\nc,5,6\n", real=("x", "y"))
    found = items(data)
    assert [item.reason for item in found if isinstance(item, Skipped)] == [reason]
    assert [item.id for item in found if isinstance(item, Record)][0::99] == ["t.csv:a"]
    assert found[-1].points.tolist() == [[5, 6]]


def test_a_short_row_without_an_id_is_of_the_sequence_around_it(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv", "x,y,id\n1,2,a\n7\n3,4,a\n5,6,b\n", real=("x", "y"))
    bad, good = items(data)
    assert (bad.path, bad.reason) == ("t.csv:a", "line 3 has 1 fields, but the header 3")
    assert good.points.tolist() == [[5, 6]]


def test_row_names_that_r_writes_without_a_header_are_told(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv", '"id","x"\n"1","a",5\n"2","a",6\n', real=("x",))
    assert skipped(data)[0] == "line 2 has 3 fields, but the header 2"


def test_oddities_that_spreadsheets_write(tmp_path: Path) -> None:
    content = '\ufeff id ; x ;note\r\n\r\n"a;1";"1";"said ""so"""\r\n\n"a;1";2;"two\r\nlines"\r\nb;3;\r\n'
    data = table(tmp_path / "t.csv", content, real=("x",), delimiter=";")
    assert points(data)["a;1"] == [[1], [2]]
    assert points(data)["b"] == [[3]]


def test_a_field_without_end_ends_the_file(tmp_path: Path) -> None:
    data = table(tmp_path / "t.csv", f'id,x\na,1\nb,"{"2" * 200_000}\n', real=("x",))
    assert skipped(data) == ["line 3: field larger than field limit (131072)"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("name,x", "it has no column 'id', but name, x"),
        ("id,id,x", "it has more than one column 'id', but id, id, x"),
        ("id;x", "it has no column 'id', but id;x; if the delimiter is another: --set 'dataset.delimiter=\";\"'"),
        ("id\tx", "it has no column 'id', but id x; if the delimiter is another: --set 'dataset.delimiter=\"\\t\"'"),
        ("", "it is empty, or its first line is"),
    ],
)
def test_a_header_that_lacks_a_column_says_what_there_is(tmp_path: Path, header: str, reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"t.csv: {reason}.")):
        table(tmp_path / "t.csv", f"{header}\n1,2\n", real=("x",)).sources()


def test_a_header_without_end_is_told_in_part(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(10_000))
    with pytest.raises(DataError, match=r"it has no column 'id', but c0, c1, .*\.\.\.\.$") as caught:
        table(tmp_path / "t.csv", f"{names}\n1\n", real=("x",)).sources()
    assert len(str(caught.value)) < 2000


def test_one_file_without_the_columns_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,x\n1,2\n")
    (tmp_path / "b.csv").write_text("id,x\n1,2\n")
    bad, good = items(Table(tmp_path, real=("x",)))
    assert (bad.path, bad.reason) == (str(tmp_path / "a.csv"), "it has no column 'id', but name, x")
    assert good.points.tolist() == [[2]]


def test_without_columns_it_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"difference, real, category and binary; .*t\.csv has id, x\."):
        table(tmp_path / "t.csv", "id,x\na,1\n").sources()
    with pytest.raises(UsageError, match=r"t\.csv has id;x; if the delimiter is another: "):
        table(tmp_path / "t.csv", "id;x\na;1\n").sources()


def test_without_an_id_every_file_is_a_sequence(tmp_path: Path) -> None:
    for name, values in (("one.csv", "1\n2\n"), ("two.csv", "3\n")):
        (tmp_path / name).write_text(f"x\n{values}")
    records = items(Table(tmp_path, id="", real=("x",)))
    assert {record.id: record.points.tolist() for record in records} == {"one.csv": [[1], [2]], "two.csv": [[3]]}


def test_a_group_is_in_one_split(tmp_path: Path) -> None:
    rows = "".join(f"{car},{trip},1\n" for car in range(40) for trip in range(car * 5, car * 5 + 5))
    by_group = items(table(tmp_path / "t.csv", f"car,id,x\n{rows}", real=("x",), group="car"))
    splits = {(record.group, record.split) for record in by_group}
    assert len(splits) == 40
    assert {split for _, split in splits} == {"train", "valid", "test"}
    by_id = items(table(tmp_path / "t.csv", real=("x",)))
    assert len({(record.id[:-1], record.split) for record in by_id}) > 40


def test_a_column_can_say_the_split(tmp_path: Path) -> None:
    content = "id,part,x\na,train,1\na,train,1\nb,valid,1\nc,test,1\nd,dev,1\ne,train,1\ne,test,1\n"
    data = table(tmp_path / "t.csv", content, real=("x",), split="part")
    assert [item.split for item in items(data) if isinstance(item, Record)] == ["train", "valid", "test"]
    assert skipped(data) == [
        "its split is 'dev', but must be train, valid, test",
        "its rows differ in the split: 'test', 'train'",
    ]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (
            {"id": np.array(["a", "b"], object), "x": [1, 2]},
            "its array 'id' holds objects or is damaged: store numbers as numbers, ids and other texts as str",
        ),
        ({"id": [1, 2], "x": [1, 2, 3]}, r"its arrays have shapes \(2,\), \(3,\), but all must be one \(N,\)"),
        ({"id": [1, 2], "x": [[1, 2], [3, 4]]}, r"its arrays have shapes \(2,\), \(2, 2\), but all must be one \(N,\)"),
        ({"id": 1, "x": 2}, r"its arrays have shapes \(\), but all must be one \(N,\)"),
    ],
)
def test_arrays_that_are_no_columns_are_skipped(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        seqdens.load("table", root=tmp_path, real=("x",))


@pytest.mark.parametrize("values", [np.array([1j, 2]), np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")])
def test_numbers_of_other_kinds_are_skipped(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "t.npz", id=["a", "a"], x=values)
    with pytest.raises(DataError, match=r"t\.npz:a: row 1 has '.*' for 'x', which must be a finite number"):
        seqdens.load("table", root=tmp_path, real=("x",))


@pytest.mark.parametrize("dtype", ["<U1", ">U2", [("a", "<U1")]])
def test_characters_beyond_unicode_are_skipped(tmp_path: Path, dtype: Any) -> None:
    names = np.frombuffer(b"\xff" * 2 * np.dtype(dtype).itemsize, dtype)
    np.savez(tmp_path / "t.npz", id=names, x=[1, 2])
    (reason,) = skipped(Table(tmp_path, real=("x",)))
    assert reason.startswith("its array 'id' holds objects or is damaged")


def test_rows_that_unpack_without_end_are_skipped(tmp_path: Path) -> None:
    rows = np.zeros(MOST_PACKED + 1, np.int8)
    np.savez_compressed(tmp_path / "t.npz", id=rows, x=rows)
    (reason,) = skipped(Table(tmp_path, real=("x",)))
    assert re.fullmatch(r"it has 1048577 rows in \d{4} bytes: write it with numpy\.savez", reason)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 junk", b"\x80\x04K\x01.", b"junk"])
def test_files_that_are_no_archive_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    reason = "it is no NPZ file, or a damaged one: write one with numpy.savez" if content else "it is empty"
    with pytest.raises(DataError, match=rf"t\.npz: {reason}\."):
        Table(tmp_path, real=("x",)).sources()


def test_a_member_of_an_archive_that_is_no_array_is_told(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "t.npz", "w") as archive:
        for name in ("id", "x"):
            archive.writestr(name, "text")
    (reason,) = skipped(Table(tmp_path, real=("x",)))
    assert reason.startswith("its array 'id' holds objects or is damaged")


def test_a_file_that_is_not_there_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv does not exist\."):
        Table(tmp_path / "t.csv", real=("x",)).sources()
    for options in ({"real": ("x",)}, {}):
        with pytest.raises(DataError, match=r"t\.csv: it is empty, or its first line is\."):
            table(tmp_path / "t.csv", "", **options).sources()


@pytest.mark.parametrize(
    ("content", "line"),
    [("id,x\na,1\n\xe4,2\n", 3), ("id,gr\xf6\xdfe,x\na,1,2\n", 1), ("id,x\n" * 9000 + "\xe4", 9001)],
)
def test_another_encoding_is_refused_unless_it_is_named(tmp_path: Path, content: str, line: int) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode("latin-1"))
    wanted = rf"t\.csv: line {line} is not UTF-8; name the file's encoding, such as --set dataset\.encoding=latin-1\."
    with pytest.raises(DataError, match=wanted):
        seqdens.load("table", root=tmp_path, real=("x",))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
def test_ids_of_any_encoding_stay_apart(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("id,x\n\xe4,1\n\xf6,2\n", encoding=encoding)
    assert points(Table(tmp_path, real=("x",), encoding=encoding)) == {"\xe4": [[1]], "\xf6": [[2]]}


@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_y_that_points_up_is_turned_down(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text("id,x,y\na,1,2\na,3,-4\na,5,\n")
    np.savez(tmp_path / "t.npz", id=["a"] * 3, x=[1, 3, 5], y=[2, -4, np.nan])
    (record,) = items(Table(tmp_path / name, difference=("x", "y"), y="up"))
    np.testing.assert_array_equal(record.points, [[1, -2], [3, 4], [5, np.nan]])
    with pytest.raises(UsageError, match=r"'y' of table is 'up', but .* none is named 'y'"):
        Table(tmp_path / name, real=("x",), y="up")


@pytest.mark.parametrize(("at", "byte"), [(10, 99), (8, 1)])
def test_packed_or_encrypted_in_a_way_that_is_not_known_is_skipped(tmp_path: Path, at: int, byte: int) -> None:
    np.savez(tmp_path / "t.npz", id=["a"], x=[1.5])
    content = bytearray((tmp_path / "t.npz").read_bytes())
    for header in re.finditer(rb"PK\x01\x02", bytes(content)):
        content[header.start() + at] = byte
    (tmp_path / "t.npz").write_bytes(content)
    (reason,) = skipped(Table(tmp_path, real=("x",)))
    assert re.search("compression method|encrypt", reason)


def test_one_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "t.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="it is one array, not an archive"):
        Table(tmp_path, real=("x",)).sources()


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w") as file:
        file.write("id,x,note\n")
        file.writelines(f"{number},1.5,{'-' * 300}\n" for number in range(200) for _ in range(20))
    data = Table(tmp_path, real=("x",))
    (source,) = data.sources()
    tracemalloc.start()
    try:
        assert sum(1 for _ in data.read(source)) == 200
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000 < (tmp_path / "t.csv").stat().st_size


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=5)
VALUES = st.none() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.dictionaries(
        NAMES.map(str.strip).filter(bool), st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4), min_size=1
    )
)
def test_what_is_written_is_read(tmp_path: Path, sequences: dict[str, list[tuple[Any, Any]]]) -> None:
    rows = [(name, *values) for name, given in sequences.items() for values in given]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "x", "y"), *rows])
    columns = [
        [math.nan if value is None else value for value in column] for column in list(zip(*rows, strict=True))[1:]
    ]
    np.savez(tmp_path / "t.npz", id=[row[0] for row in rows], x=columns[0], y=columns[1])
    for name in ("t.csv", "t.npz"):
        found = items(Table(tmp_path / name, real=("x", "y")))
        if name == "t.npz" and any("\0" in key for key in sequences):
            continue
        assert [item.id for item in found] == [f"{name}:{key}" for key in sequences]
        for record, written in zip(found, sequences.values(), strict=True):
            np.testing.assert_array_equal(record.points, np.array(written, float))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text('id,x\n\r"\0; 1.e-\ufffd', max_size=60).map(str.encode))
def test_nothing_in_a_file_is_a_crash(tmp_path: Path, content: bytes) -> None:
    for name in ("t.csv", "t.npz"):
        (tmp_path / name).write_bytes(b"id,x\n" + content if name == "t.csv" else content)
    data = Table(tmp_path, real=("x",))
    for item in items(data):
        assert isinstance(item, Record | Skipped)
        if isinstance(item, Skipped):
            assert item.reason
            assert "\n" not in item.reason


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compressed=st.booleans())
def test_no_damage_to_an_archive_is_a_crash(tmp_path: Path, data: st.DataObject, compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "t.npz", id=["a", "a", "b"], x=[1.5, 2.5, 3.5])
    content = bytearray((tmp_path / "t.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "t.npz").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    for item in Table(tmp_path, real=("x",)).read(seqdens.Source("t.npz", (tmp_path / "t.npz",))):
        assert isinstance(item, Record) or ("\n" not in item.reason and item.reason)
