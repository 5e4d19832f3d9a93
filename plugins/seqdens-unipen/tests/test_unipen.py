"""UNIPEN: every keyword that is read, what segments name, whose they are, and files that are damaged or hostile."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import seqdens_unipen.unipen
from hypothesis import given, settings
from hypothesis import strategies as st
from seqdens_unipen import Unipen

import seqdens
from seqdens import Record, Skipped
from seqdens.testing import DatasetContract

REAL = Path(__file__).parents[4] / "shared" / "data"
HEADER = ".VERSION 1.0\n.COORD X Y\n.HIERARCHY WORD\n"
STROKES = ".PEN_DOWN\n 1 10\n 2 20\n.PEN_UP\n.PEN_DOWN\n 3 30\n 4 40\n 5 50\n.PEN_UP\n"
INK = [[1, 10, 0], [2, 20, 1], [3, 30, 0], [4, 40, 0], [5, 50, 1]]  # of STROKES: x, y, end of a stroke


class TestUnipen(DatasetContract):
    dataset = seqdens.dataset("unipen", split="segment")
    impossible = (("y", "sideways"), ("split", "page"))

    def make_files(self, root: Path) -> None:
        for name in ("anna.dat", "bert.dat"):
            (root / name).write_text(file_of(name, 12))


def file_of(writer: str, count: int) -> str:
    """A file of words of two strokes, each a little different."""
    strokes = ".PEN_DOWN\n {0} 0\n 5 {0}\n.PEN_UP\n.PEN_DOWN\n 7 {0}\n 8 9\n.PEN_UP\n"
    words = (f'.SEGMENT WORD {2 * i}-{2 * i + 1} OK "word {i}"\n{strokes.format(i)}' for i in range(count))
    return f"{HEADER}.WRITER_ID {writer}\n{''.join(words)}"


def items(root: Path, content: str | bytes, name: str = "a.dat", **options: str) -> list[Record | Skipped]:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode("iso-8859-1"))
    data = Unipen(root, **{"y": "down"} | options)
    (source,) = [source for source in data.sources() if source.name == name]
    return list(data.read(source))


def records(root: Path, content: str | bytes, name: str = "a.dat", **options: str) -> list[Record]:
    found = items(root, content, name, **options)
    assert [item for item in found if isinstance(item, Skipped)] == []
    return [item for item in found if isinstance(item, Record)]


def reasons(root: Path, content: str | bytes) -> list[str]:
    found = items(root, content)
    assert all(item.path == str(root / "a.dat") for item in found if isinstance(item, Skipped))
    return [item.reason for item in found if isinstance(item, Skipped)]


def ink(record: Record) -> list[list[int]]:
    """x, y and whether a stroke ends there, which the last one does by the end of the sequence."""
    x, y, stroke_end, sequence_end = record.points.T
    assert np.flatnonzero(sequence_end).tolist() == [len(x) - 1]
    assert not stroke_end[-1]
    return np.column_stack([x, y, stroke_end + sequence_end]).tolist()


def test_a_segment_is_a_record_of_its_strokes(tmp_path: Path) -> None:
    (record,) = records(tmp_path, f'{HEADER}.WRITER_ID anna b.\n.SEGMENT WORD 0-1 OK "hello"\n{STROKES}')
    assert (record.id, record.text, record.label, record.group) == ("a.dat/0", "hello", "hello", "anna b.")
    assert (ink(record), record.points.dtype) == (INK, np.int32)


@pytest.mark.parametrize(
    ("named", "rows"),
    [
        ("0-1", [0, 1, 2, 3, 4]),
        ("0,1", [0, 1, 2, 3, 4]),
        ("1", [2, 3, 4]),
        ("1,0", [2, 3, 4, 0, 1]),
        ("0:1-1:1", [1, 2, 3]),
        ("0-1:0", [0, 1, 2]),
        ("0:1-1", [1, 2, 3, 4]),
        ("1:1-1:2", [3, 4]),
        ("?", [0, 1, 2, 3, 4]),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_components_are_named_in_each_way_that_unipen_knows(
    tmp_path: Path, named: str, rows: list[int], place: str
) -> None:
    if (named, place) == ("?", "after"):
        named = "0-1"
    segment = f'.SEGMENT WORD {named} ? "w"\n'
    (record,) = records(tmp_path, f"{segment}{STROKES}" if place == "before" else f"{STROKES}{segment}")
    assert record.points[:, :2].tolist() == [INK[row][:2] for row in rows]


def test_segments_without_components_end_at_the_next_of_their_level(tmp_path: Path) -> None:
    content = f'.SEGMENT LINE\n.SEGMENT WORD ? OK "a"\n{STROKES}.SEGMENT WORD ? OK "b"\n{STROKES}'
    assert [len(record.points) for record in records(tmp_path, content)] == [10]
    words = records(tmp_path, content, level="WORD")
    assert [(record.text, ink(record)) for record in words] == [("a", INK), ("b", INK)]


def test_segments_of_one_level_are_read_the_first_one_unless_named(tmp_path: Path) -> None:
    content = f'.SEGMENT WORD 0-1 OK "to"\n.SEGMENT CHARACTER 0 OK "t"\n.SEGMENT CHARACTER 1 OK "o"\n{STROKES}'
    assert [(record.id, record.text) for record in records(tmp_path, content)] == [("a.dat/0", "to")]
    characters = records(tmp_path, content, level="CHARACTER")
    assert [(record.id, record.text) for record in characters] == [("a.dat/1", "t"), ("a.dat/2", "o")]
    (skipped,) = items(tmp_path, content, level="LINE")
    assert skipped == Skipped(str(tmp_path / "a.dat"), "has no .SEGMENT of level 'LINE' but of 'CHARACTER WORD'")


@pytest.mark.parametrize(
    ("label", "text"),
    [(r"a \"b\" \\c", r'a "b" \c'), ("two\n  lines", "two lines"), (r"a\nb\tc", "a b c"), ("é", "é"), ("", "")],
)
def test_labels_are_unescaped(tmp_path: Path, label: str, text: str) -> None:
    (record,) = records(tmp_path, f'.SEGMENT WORD 0-1 OK "{label}"\n{STROKES}')
    assert record.text == record.label == text


def test_coordinates_stand_in_the_order_declared(tmp_path: Path) -> None:
    content = '.COORD T Y P X\n.SEGMENT W 0 ? "w"\n.PEN_DOWN 5 20 0.5 10\n6 21 0.5 11 7 22 nan 12\n'
    (record,) = records(tmp_path, content)
    assert ink(record) == [[10, 20, 0], [11, 21, 0], [12, 22, 1]]


def test_pens_in_the_air_are_numbered_where_they_have_points_and_are_not_ink(tmp_path: Path) -> None:
    content = (
        '.SEGMENT W 0-2 ? "w"\n.PEN_DOWN\n1 1\n2 2\n.PEN_UP\n9 9\n8 8\n.PEN_DOWN\n3 3\n.PEN_UP\n.PEN_DOWN\n.PEN_UP\n'
    )
    (record,) = records(tmp_path, content)
    assert ink(record) == [[1, 1, 0], [2, 2, 1], [3, 3, 1]]


def test_a_pause_does_not_end_a_component(tmp_path: Path) -> None:
    (record,) = records(tmp_path, '.SEGMENT W 0 ? "w"\n.PEN_DOWN\n1 1\n.DT 100\n2 2\n.PEN_UP\n.DT 20\n\n')
    assert ink(record) == [[1, 1, 0], [2, 2, 1]]


def test_free_text_is_passed_over_up_to_the_next_keyword(tmp_path: Path) -> None:
    text = ".COMMENT 7 8\n 9 9\n .PEN_DOWN in the middle\n...\n.X_DIM 4\n.LEXICON\n 'a'\n"
    (record,) = records(tmp_path, f'{text}.SEGMENT WORD 0-1 ? "w"\n{text}{STROKES}{text}')
    assert ink(record) == INK


def test_numbers_begin_anew_with_a_set_and_with_a_file_that_was_joined_on(tmp_path: Path) -> None:
    part = f'.SEGMENT WORD 0-1 ? "w"\n{STROKES}'
    found = records(tmp_path, f"{part}.START_SET two\n{part}.LEXICON\n.HIERARCHY WORD\n{part}")
    assert [record.group for record in found] == ["a.dat/1", "a.dat/1", "a.dat/2"]
    assert [ink(record) for record in found] == [INK, INK, INK]


def test_any_keyword_may_end_a_component(tmp_path: Path) -> None:
    first = ".PEN_DOWN\n1 1\n.PEN_UP\n.PEN_DOWN\n2 2\n.COMMENT\n"
    content = f'.SEGMENT W 0-1 ? "w"\n{first}.SEGMENT W 2 ? "v"\n.PEN_DOWN\n3 3\n4 4\n'
    assert [ink(record) for record in records(tmp_path, content)] == [[[1, 1, 1], [2, 2, 1]], [[3, 3, 0], [4, 4, 1]]]


def test_a_component_that_cannot_be_read_is_counted_once(tmp_path: Path) -> None:
    bad, good = items(tmp_path, '.SEGMENT W 0 ? "a"\n.SEGMENT W 1 ? "b"\n.PEN_DOWN\nx\n1 1\n.PEN_DOWN\n2 2\n3 3\n')
    assert isinstance(bad, Skipped)
    assert ink(good) == [[2, 2, 0], [3, 3, 1]]


def test_fractions_stay_fractions(tmp_path: Path) -> None:
    (record,) = records(tmp_path, '.SEGMENT W 0 ? "w"\n.PEN_DOWN\n.5 -1\n+2. 1e1\n')
    assert (record.points[:, :2].tolist(), record.points.dtype) == ([[0.5, -1], [2, 10]], np.float64)


def test_y_points_down(tmp_path: Path) -> None:
    content = '.SEGMENT W 0 ? "w"\n.PEN_DOWN\n0 1\n0 5\n'
    expected = {("a", "up"): -5, ("a", "down"): 5, ("a", "auto"): -5, ("UJIpenchars-w01", "auto"): 5}
    for (name, y), last in expected.items():
        (record,) = records(tmp_path, content, name, y=y)
        assert record.points[-1, 1] == last


def test_the_digits_of_alpaydin_and_alimoglu_name_their_writers_in_comments(tmp_path: Path) -> None:
    part = '.SEGMENT DIGIT {} ? "8"\n.COMMENT {}\n.PEN_DOWN\n1 1\n2 2\n.PEN_UP\n.DT 100\n'
    content = "".join(part.format(i, c) for i, c in enumerate(["8 12  224", "7 12 224", "8 twelve", "8  3 1"]))
    found = records(tmp_path, gzip.compress(content.encode()), "digits.tra.gz")
    assert [record.group for record in found] == ["digits.tra/12", "digits.tra", "digits.tra", "digits.tra/3"]


def test_splits_are_the_files_own_and_by_writer(tmp_path: Path) -> None:
    content = "".join(f'.WRITER_ID {i}\n.SEGMENT W ? ? "w"\n{STROKES}' * 2 for i in range(60))
    own = {name: records(tmp_path, content, name) for name in ("a.tra", "a.tes", "a.dat", "a.trace")}
    assert {record.split for record in own["a.tes"]} == {"test"}
    assert {record.split for record in own["a.tra"]} == {"train", "valid"}
    assert [r.split for r in own["a.dat"]] == [r.split for r in own["a.trace"]]
    assert {record.split for record in own["a.dat"]} == {"train", "valid", "test"}
    assert len({(record.group, record.split) for record in own["a.dat"]}) == 60
    assert [r.split for r in own["a.dat"]] != [r.split for r in records(tmp_path, content, seed=1)]
    apart = records(tmp_path, content, split="segment")
    assert len({(record.group, record.split) for record in apart}) > 60


def test_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    content = f'.SEGMENT WORD 0-1 ? "w"\n{STROKES}'
    (plain,), (packed,) = records(tmp_path, content, "plain"), records(tmp_path, gzip.compress(content.encode()), "b")
    np.testing.assert_array_equal(plain.points, packed.points)


def test_files_of_compress_must_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "digits.tra.Z").write_bytes(b"\x1f\x9d")
    with pytest.raises(seqdens.DataError, match=r"digits\.tra\.Z is packed .* `gunzip digits\.tra\.Z`\.$"):
        Unipen(tmp_path).sources()


def test_hidden_files_are_not_sources(tmp_path: Path) -> None:
    (tmp_path / ".notes").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b").touch()
    assert [source.name for source in Unipen(tmp_path).sources()] == ["below/b"]


def test_an_included_file_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "strokes.inc").write_text(".COORD T X Y\n.WRITER_ID anna\n.PEN_DOWN\n0 7 7\n0 8 8\n.PEN_UP\n")
    (record,) = records(tmp_path, '.INCLUDE strokes.inc\n ignored\n.SEGMENT W 0-1 ? "w"\n.PEN_DOWN\n0 1 1\n.PEN_UP\n')
    assert (ink(record), record.group) == ([[7, 7, 0], [8, 8, 1], [1, 1, 1]], "anna")


def test_an_included_file_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    (record,) = records(tmp_path, f'.INCLUDE dene.doc\n.INCLUDE {"x" * 5000}\n.SEGMENT W 0-1 ? "w"\n{STROKES}')
    assert ink(record) == INK


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret", "..\\secret", "..", "link", "self"])
def test_an_include_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret").write_text(STROKES)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "self").write_text(".INCLUDE self\n")
    found = items(root, f'{STROKES}.INCLUDE {name}\n.SEGMENT W 0-1 ? "kept"\n.SEGMENT W 2-3 ? "secret"\n')
    kept, missing, fault = found
    assert isinstance(kept, Record)
    assert missing.reason == ".SEGMENT of line 12: it names components 2 to 3, but there are 2, from 0 on"
    assert fault.reason.startswith(f"line {1 if name == 'self' else 10}: .INCLUDE {name!r}")


GOOD = f'.SEGMENT W 0-1 ? "good"\n{STROKES}'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2 x\n', "line 14: '2 x' are not numbers of 32 bits for .COORD 'X Y'"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2\n', "line 14: '2' are not numbers of 32 bits for .COORD 'X Y'"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2\0 2\n', "line 14: '2\\x00 2' are not numbers of 32 bits"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\nnan 2\n', "line 14: 'nan 2' are not numbers of 32 bits"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n1e400 2\n', "line 14: '1e400 2' are not numbers of 32 bits"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2147483648 2\n', "line 14: '2147483648 2' are not numbers of 32 bits"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n1_0 2\n', "line 14: '1_0 2' are not numbers of 32 bits"),
        (f'.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n{"9" * 5000} 2\n', "line 14: '999"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2 2', "line 14: the file ends in the middle of a line"),
        ('.SEGMENT W 2 ? "a"\n.PEN_DOWN\n1 1\n2 2\n', "line 14: the file ends before .PEN_UP"),
        ('.SEGMENT W 2-3 ? "a"\n.PEN_DOWN\n1 1\n.PEN_UP\n', "names components 2 to 3, but there are 3, from 0 on"),
        ('.SEGMENT W 2-999999999 ? "a"\n', "names components 2 to 999999999, but there are 2, from 0 on"),
        ('.SEGMENT W 9999999999 ? "a"\n', "components '9999999999' do not read A, A-B or A:M-B:N"),
        ('.SEGMENT W 1-0 ? "a"\n', "names components 1 to 0"),
        ('.SEGMENT W 0-1:3 ? "a"\n', "names points 0 to 3 of the 3 of component 1"),
        ('.SEGMENT W 1:2-1:1 ? "a"\n', "names points 2 to 1 of the 3 of component 1"),
        ('.SEGMENT W 0:1 ? "a"\n', "components '0:1' do not read"),
        ('.SEGMENT W 0--1 ? "a"\n', "components '0--1' do not read"),
        ('.SEGMENT W ? ? "nothing"\n', "it names no components, and none follow it"),
        ('.SEGMENT W 0:0-0:0 ? "dot"\n', "1 point(s) with the pen down: nothing to predict"),
        (".SEGMENT W 0 ? bare\n", "'W 0 ? bare' does not read LEVEL COMPONENTS QUALITY \"LABEL\""),
        ('.SEGMENT W 0 ? "open\n', "does not read LEVEL COMPONENTS QUALITY"),
        ('.SEGMENT W 0 ? "a\0b"\n', "does not read LEVEL COMPONENTS QUALITY"),
        (".SEGMENT\n", "'' does not read LEVEL COMPONENTS QUALITY"),
    ],
)
def test_a_damaged_segment_costs_only_itself(tmp_path: Path, content: str, expected: str) -> None:
    good, bad = items(tmp_path, GOOD + content)
    assert isinstance(good, Record)
    assert isinstance(bad, Skipped)
    assert bad.reason.startswith(".SEGMENT of line 11: ")
    assert expected in bad.reason


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no .SEGMENT"),
        (STROKES, "has no .SEGMENT"),
        ("47,100,27\n", "line 1: '47,100,27' is no keyword, with which a UNIPEN file begins"),
        (b"\x00\xff\n", r"line 1: '\x00ÿ' is no keyword, with which a UNIPEN file begins"),
        (f".COORD X T\n{GOOD}", "line 1: .COORD 'X T' lacks X or Y"),
    ],
)
def test_a_file_that_is_not_unipen_is_skipped(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert reasons(tmp_path, content) == [expected]


def test_what_is_whole_in_a_truncated_archive_is_read(tmp_path: Path) -> None:
    content = gzip.compress(file_of("anna", 200).encode(), mtime=0)
    found = items(tmp_path, content[: len(content) // 2])
    kept = [item for item in found if isinstance(item, Record)]
    assert [record.text for record in kept] == [f"word {i}" for i in range(len(kept))]
    assert 50 < len(kept) < 150
    assert found[-1].reason.startswith("after line ")
    assert "cannot be read: Compressed file ended" in found[-1].reason
    assert len(found) <= len(kept) + 2


@pytest.mark.parametrize(
    "content", [gzip.compress(b".COMMENT")[:12], b"\x1f\x8bjunk", gzip.compress(b"..")[:-8] + bytes(8)]
)
def test_a_broken_archive_is_skipped(tmp_path: Path, content: bytes) -> None:
    assert "cannot be read: " in reasons(tmp_path, content)[-1]


def test_a_file_that_unpacks_without_end_is_left(tmp_path: Path) -> None:
    (reason,) = reasons(tmp_path, gzip.compress(b".COMMENT" + b" " * 2**24))
    assert reason.startswith("line 1: too long to be read")


def test_a_file_that_unpacks_to_far_more_is_left_and_read_unpacked(tmp_path: Path) -> None:
    content = f"{GOOD}.COMMENT\n{(' ' * 60_000 + chr(10)) * 300}".encode()
    packed = gzip.compress(content)
    assert len(content) > seqdens_unipen.unipen.LARGEST_UNPACKED > 100 * len(packed)
    (record,) = records(tmp_path, content)
    assert record.text == "good"
    (reason,) = reasons(tmp_path, packed)
    assert reason.endswith("too long to be read, which is a line below 65536 and a file below 16777216 characters")


def test_a_segment_without_end_ends_the_file(tmp_path: Path) -> None:
    good, bad, fault = items(tmp_path, f'{GOOD}.SEGMENT W 0 ? "{"a" * 60_000}\n{"a" * 60_000}"\n')
    assert isinstance(good, Record)
    assert bad.reason.startswith(".SEGMENT of line 11: .SEGMENT 'W 0 ? ")
    assert fault.reason == "line 12: a .SEGMENT has more than 65536 characters"


def test_a_link_out_of_the_folder_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(GOOD)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "secret")
    data = Unipen(tmp_path / "data")
    (skipped, *_) = [item for source in data.sources() for item in data.read(source)]
    assert skipped.reason.startswith("is a link that leads out of the folder")


def test_a_file_that_is_too_large_is_read_up_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seqdens_unipen.unipen, "LARGEST_FILE", 2000)
    *found, last = items(tmp_path, file_of("anna", 100))
    assert any(isinstance(item, Record) for item in found)
    assert "too long to be read" in last.reason


def test_segments_that_multiply_the_points_of_a_file_are_left_out(tmp_path: Path) -> None:
    over = ".SEGMENT of line {}: it and those before it name the same points over and over"
    assert reasons(tmp_path, STROKES + '.SEGMENT W 0-1 ? "w"\n' * 6) == [over.format(14), over.format(15)]
    assert reasons(tmp_path, f"{STROKES}.SEGMENT W {','.join(['0-1'] * 10_000)}\n") == [over.format(10)]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[tuple[str, list[list[tuple[int, int]]]]]]:
    """A file, and its segments: label and strokes."""
    coordinate = st.integers(-(2**31) + 1, 2**31 - 1)
    stroke = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4)
    label = st.text(st.characters(codec="iso-8859-1", categories=["L", "N", "P", "S"]), max_size=5)
    segments = draw(st.lists(st.tuples(label, st.lists(stroke, min_size=2, max_size=3)), min_size=1, max_size=4))
    lines, count = [], 0
    for text, strokes in segments:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'.SEGMENT WORD {count}-{count + len(strokes) - 1} OK "{escaped}"')
        for points in strokes:
            lines += [".PEN_DOWN", *(f" {x} {y}" for x, y in points), ".PEN_UP"]
        count += len(strokes)
    return "\n".join([*lines, ""]), segments


@given(files())
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: tuple) -> None:
    content, segments = written
    found = records(tmp_path_factory.mktemp("any"), content)
    assert [record.text for record in found] == [text for text, _ in segments]
    for record, (_, strokes) in zip(found, segments, strict=True):
        assert record.points[:, :2].tolist() == [list(point) for stroke in strokes for point in stroke]
        assert (
            np.flatnonzero(record.points[:, 2:].any(axis=1)).tolist()
            == (np.cumsum([len(s) for s in strokes]) - 1).tolist()
        )


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_anything_is_read_or_skipped_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(file_of("anna", 3).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    for item in items(tmp_path_factory.mktemp("any"), bytes(content)):
        if isinstance(item, Skipped):
            assert item.reason.isprintable()
        else:
            assert np.isfinite(item.points).all()


def real(name: str) -> list[Record]:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"the recordings of {folder} are not here")
    data = Unipen(folder)
    found = [item for source in data.sources() for item in data.read(source)]
    assert not any(isinstance(item, Skipped) for item in found)
    return found


def test_the_real_pendigits() -> None:
    found = real("pendigits")
    writers = {
        split: {record.group for record in found if record.split == split} for split in ("train", "valid", "test")
    }
    assert {split: len(groups) for split, groups in writers.items()} == {"train": 28, "valid": 2, "test": 14}
    assert len(set.union(*writers.values())) == 44
    assert [sum(record.split == "test" for record in found), len(found)] == [3498, 10992]
    assert {record.label for record in found} == set("0123456789")
    assert falls(found) > 0.99


def test_the_real_ujipenchars() -> None:
    found = real("ujipenchars")
    assert (len(found), len({record.group for record in found}), len({record.label for record in found})) == (
        1364,
        11,
        62,
    )
    assert falls(found) > 0.9


def falls(found: list[Record]) -> float:
    """The share of sevens that end below where they begin."""
    return float(
        np.mean([r.points[r.points[:, 2:].any(axis=1).argmax(), 1] > r.points[0, 1] for r in found if r.label == "7"])
    )


def test_it_says_how_it_is_split(tmp_path: Path) -> None:
    for split in ("writer", "segment"):
        (note,) = Unipen(tmp_path, split=split).notes
        assert note == (
            f"split by a hash of the {split}: about 80 % train, 10 % valid, 10 % test; "
            "of files *.tra none is test, files *.tes all are"
        )
