"""IAM-OnDB: the layout on disk, the official lists, the transcriptions, and files that are damaged."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from seqdens.datasets.base import Record, Skipped
from seqdens.datasets.iamondb import (
    PLAIN,
    PLAIN_SIZE,
    IamOnDB,
    hashed_split,
    parse_strokes,
    transcribed,
    without_long_steps,
    xml_points,
)
from seqdens.errors import DataError, UsageError

HEADER = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
TWO_STROKES = [[(1073, 1058), (1072, 1085), (1066, 1117)], [(1200, 1000)]]


def line_xml(strokes):
    def point(xy):
        return f'      <Point x="{xy[0]}" y="{xy[1]}" time="769.05"/>\n'

    body = "".join(f'    <Stroke colour="black">\n{"".join(map(point, s))}    </Stroke>\n' for s in strokes)
    return (
        f"{HEADER}<WhiteboardCaptureSession>\n  <WhiteboardDescription>\n"
        '    <DiagonallyOppositeCoords x="6512" y="1376"/>\n  </WhiteboardDescription>\n'
        f"  <StrokeSet>\n{body}  </StrokeSet>\n</WhiteboardCaptureSession>\n"
    )


def plain_xml(strokes):
    """As `line_xml`, with all that a real file has."""
    corners = "".join(f'    <{name}OppositeCoords x="6572" y="25"/>\n' for name in ("Vertically", "Horizontally"))
    content = line_xml(strokes).replace('colour="black"', 'colour="black" start_time="769.05" end_time="770.1"')
    content = content.replace("    <Diagonally", '    <SensorLocation corner="top_left"/>\n    <Diagonally')
    return content.replace("  </WhiteboardDescription>", f"{corners}  </WhiteboardDescription>").encode()


def add_line(root, name, content=None):
    path = root / "lineStrokes" / name[:3] / name[:7] / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = line_xml(TWO_STROKES) if content is None else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode("iso-8859-1"))
    return path


def add_text(root, form, *lines, ending="\n"):
    path = root / "ascii" / form[:3] / form[:7] / f"{form}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ["OCR:", "", "something else", "", "CSR:", "", *lines, ""]
    path.write_bytes(ending.join(content).encode("iso-8859-1"))
    return path


def add_lists(folder, trainset="", testset_v="", testset_t="", testset_f=""):
    folder.mkdir(parents=True, exist_ok=True)
    lists = {"trainset": trainset, "testset_v": testset_v, "testset_t": testset_t, "testset_f": testset_f}
    for name, forms in lists.items():
        (folder / f"{name}.txt").write_text("".join(f" {form}\n" for form in forms.split()))


def read_all(data):
    items = [item for source in data.sources() for item in data.read(source)]
    records = [item for item in items if isinstance(item, Record)]
    return records, [item for item in items if isinstance(item, Skipped)]


def outcome(function, argument):
    """What `function` returns, or the text of the `ValueError` it raises."""
    try:
        return function(argument)
    except ValueError as error:
        return str(error)


@pytest.fixture
def root(tmp_path):
    """Four forms, one a part of the official lists, and a fifth that is in none."""
    for form in ("a01-000u", "a01-001w", "a02-000", "b01-014", "z01-000"):
        add_line(tmp_path, f"{form}-01")
        add_line(tmp_path, f"{form}-02")
        add_text(tmp_path, form, "A MOVE to stop", "from nomnating")
    return tmp_path


@pytest.fixture
def listed(root):
    add_lists(root, "a01-000u", "a01-001w", "a02-000", "b01-014")
    return root


def test_a_line_is_its_points_text_and_form(root):
    records, skipped = read_all(IamOnDB(root))
    first = records[0]
    assert (first.id, first.text, first.group) == ("a01-000u-01", "A MOVE to stop", "a01-000u")
    assert first.points.dtype == np.int32
    np.testing.assert_array_equal(first.points, [[1073, 1058, 0], [1072, 1085, 0], [1066, 1117, 1], [1200, 1000, 1]])
    assert records[1].text == "from nomnating"
    assert (len(records), skipped) == (10, [])


@pytest.mark.parametrize(
    ("protocol", "splits"),
    [("graves", ["train", "valid", "train", "train"]), ("official", ["train", "valid", "valid", "test"])],
)
@pytest.mark.parametrize("place", ["", "splits", "task1"])
def test_lists_beside_the_data_decide_the_split(root, place, protocol, splits):
    add_lists(root / place, "a01-000u", "a01-001w", "a02-000", "b01-014")
    data = IamOnDB(root, protocol=protocol)
    records, skipped = read_all(data)
    assert [record.split for record in records[::2]] == splits
    assert [source.split for source in data.sources()] == splits
    assert skipped == []
    assert data.notes[1] == "left out, since in none of the lists: 2 lines of z01-000"
    assert protocol in data.notes[0]
    assert str(root / place) in data.notes[0]


def test_lists_that_are_named_win_over_those_beside_the_data(listed, tmp_path):
    add_lists(tmp_path / "mine", testset_v="a01-000u c09-999")
    data = IamOnDB(listed, lists=tmp_path / "mine")
    assert [record.split for record in read_all(data)[0]] == ["valid", "valid"]
    assert "1 forms of the lists are not in" in data.notes[1]


def test_a_missing_list_is_named(listed):
    (listed / "testset_t.txt").unlink()
    for data in (IamOnDB(listed), IamOnDB(listed, lists=listed)):
        with pytest.raises(DataError, match=r"testset_t\.txt cannot be read: .*trainset\.txt, testset_v\.txt"):
            data.sources()


def test_lists_of_other_forms_are_refused(root, tmp_path):
    add_lists(tmp_path / "other", "x01-000")
    with pytest.raises(DataError, match="name none of the 5 forms"):
        IamOnDB(root, lists=tmp_path / "other").sources()


def test_a_list_that_loses_a_form_loses_its_source(listed):
    before = IamOnDB(listed).sources()
    add_lists(listed, "", "a01-001w", "a02-000", "b01-014")
    assert IamOnDB(listed).sources() == before[1:]


def test_without_lists_forms_are_split_by_a_hash_and_a_note_says_so(root):
    data = IamOnDB(root, seed=3)
    for record in read_all(data)[0]:
        assert record.split == hashed_split(record.group, 3)
    assert "no official lists (trainset.txt" in data.notes[0]
    assert "seed 3" in data.notes[0]


def test_the_hashed_split_has_the_stated_shares_and_depends_on_the_seed():
    forms = [f"a{number:05d}" for number in range(10_000)]
    for seed in (0, 1):
        counts = Counter(hashed_split(form, seed) for form in forms)
        assert [counts[split] / 1e4 for split in ("train", "valid", "test")] == pytest.approx(
            [0.85, 0.075, 0.075], abs=0.015
        )
    assert [hashed_split(form, 0) for form in forms] != [hashed_split(form, 1) for form in forms]
    assert [hashed_split(f"a01-00{n}u", 0) for n in range(10)].count("train") == 8  # on every machine


def test_transcriptions_with_dos_line_ends_and_per_cent_signs_for_a_line_break(tmp_path):
    add_line(tmp_path, "a08-551z-01")
    add_line(tmp_path, "a08-551z-02")
    add_text(tmp_path, "a08-551z", "50 % of an ankle bone %%%%%%%%%%% pinn\xe9d. ", ending="\r\n")
    records, skipped = read_all(IamOnDB(tmp_path))
    assert [record.text for record in records] == ["50 % of an ankle bone", "pinn\xe9d."]
    assert skipped == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text("OCR:\n\nsome text\n"), "no text after 'CSR:'"),
        (lambda path: path.write_text("CSR:\n\nonly one line\n"), "1 lines of text for 2 line files"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_a_lost_transcription_costs_the_texts_but_no_strokes(root, damage, reason):
    path = root / "ascii" / "a01" / "a01-000" / "a01-000u.txt"
    damage(path)
    records, skipped = read_all(IamOnDB(root))
    assert [record.text for record in records[:3]] == ["", "", "A MOVE to stop"]
    assert [skip.path for skip in skipped] == [str(path)]
    assert reason in skipped[0].reason


def test_without_any_transcriptions_there_is_nothing_to_complain_about(tmp_path):
    add_line(tmp_path, "a01-000u-01")
    records, skipped = read_all(IamOnDB(tmp_path))
    assert [record.text for record in records] == [""]
    assert skipped == []


def test_a_form_with_a_placeholder_for_its_transcription_is_left_out(root):
    path = add_text(root, "a01-000u", "Please Enter Transcription here ", ending="\r\n")
    records, skipped = read_all(IamOnDB(root))
    assert "a01-000u" not in {record.group for record in records}
    assert [skip.path for skip in skipped] == [str(path)]
    assert "line files left out: 2" in skipped[0].reason


BOMB = "<!DOCTYPE a [<!ENTITY b0 'ha'>" + "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 10))
DAMAGED = {
    "empty": ("", "Document is empty"),
    "truncated": (line_xml(TWO_STROKES)[:400], "is not well-formed XML"),
    "NUL": (line_xml(TWO_STROKES).replace("1085", "10\08"), "is not well-formed XML"),
    "no XML": ("x y button\n", "Start tag expected"),
    "billion laughs": (f"{BOMB}]><a>&b9;</a>", "XML"),
    "entity": (line_xml(TWO_STROKES).replace("?>", "?><!DOCTYPE a [<!ENTITY b 'c'>]>"), "declares XML entities"),
    "outside": (f"<!DOCTYPE a [<!ENTITY b SYSTEM '{__file__}'>]><a>&b;</a>", "declares XML entities"),
    "no number": (line_xml([[(1, 2), ("7O", 3)]]), "stroke 1 has a point with x='7O'"),
    "fraction": (line_xml([[(1, 2)], [(1, 2.5)]]), "stroke 2 has a point with y='2.5', not a whole number"),
    "infinite": (line_xml([[(1, 2), (3, "inf")]]), "stroke 1 has a point with y='inf'"),
    "too large": (line_xml([[(1, 2), (3, 2**31)]]), "stroke 1 has a point with y='2147483648'"),
    "no y": (line_xml([[(1, 2)], [(3, 4)]]).replace('y="4"', ""), "stroke 2 holds something that is not a point"),
    "no x but one": (line_xml([[(1, 2), (3, 4)]]).replace('x="3"', ""), "stroke 1 holds something"),
    "no point": (line_xml([[(1, 2), (3, 4)]]).replace("</Stroke>", "<Dot/></Stroke>"), "stroke 1 holds something"),
    "one point": (line_xml([[], [(1, 2)], []]), "has 1 point(s): nothing to predict"),
    "no strokes": (line_xml([]), "has 0 point(s): nothing to predict"),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_skipped_with_its_reason_and_its_neighbour_is_read(root, content, reason):
    path = add_line(root, "a01-000u-01", content)
    records, skipped = read_all(IamOnDB(root))
    assert [skip.path for skip in skipped] == [str(path)]
    assert reason in skipped[0].reason
    assert "\n" not in skipped[0].reason
    assert records[0].id == "a01-000u-02"
    assert records[0].text == "from nomnating"


def test_a_line_that_is_gone_since_it_was_listed_is_skipped(root):
    data = IamOnDB(root)
    source = data.sources()[0]
    source.paths[0].unlink()
    skipped, record = data.read(source)
    assert skipped == Skipped(str(source.paths[0]), "cannot be read: No such file or directory")
    assert record.id == "a01-000u-02"


def test_empty_strokes_and_comments_hold_no_points():
    content = line_xml([[], [(1, 2), (3, 4)], [], [(5, 6)]]).replace("</Stroke>", "<!-- <Point/> --></Stroke>")
    np.testing.assert_array_equal(parse_strokes(content.encode()), [[1, 2, 0], [3, 4, 1], [5, 6, 1]])


whole = st.integers(-(2**31), 2**31 - 1)


@hypothesis_settings(deadline=None)
@given(st.lists(st.lists(st.tuples(whole, whole), min_size=1, max_size=5), min_size=1, max_size=5))
def test_strokes_read_back_as_they_were_written(strokes):
    points = parse_strokes(line_xml(strokes).encode())
    ends = np.flatnonzero(points[:, 2]) + 1
    assert [part[:, :2].tolist() for part in np.split(points, ends)[:-1]] == [
        [list(xy) for xy in stroke] for stroke in strokes
    ]


@hypothesis_settings(deadline=None)
@given(st.integers(0, 500), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_bytes_give_points_or_a_reason(at, inserted, removed):
    content = line_xml(TWO_STROKES).encode()
    result = outcome(parse_strokes, content[:at] + inserted + content[at + removed :])
    assert result if isinstance(result, str) else result.shape[1:] == (3,)


def assert_read_as_xml(content):
    """That what `parse_strokes` gives or complains of is what the parser of XML does."""
    result, expected = outcome(parse_strokes, content), outcome(xml_points, content)
    assert type(result) is type(expected)
    np.testing.assert_array_equal(result, expected)


@hypothesis_settings(deadline=None)
@given(st.lists(st.lists(st.tuples(whole, whole), max_size=5), max_size=5))
def test_plain_files_are_read_as_any_xml(strokes):
    content = plain_xml(strokes)
    small = all(abs(number) < 10**9 for stroke in strokes for point in stroke for number in point)
    assert bool(PLAIN.fullmatch(content)) == (small and bool(strokes) and all(strokes))
    assert_read_as_xml(content)


# What might slip through where only bytes are compared
HOSTILE = [
    *(
        b"&",
        b"&lt;",
        b"&#49;",
        b"&b;",
        b"<",
        b">",
        b"/",
        b'"',
        b"'",
        b"=",
        b"-",
        b"+",
        b".",
        b"0",
        b"7",
        b"_",
        b" 7 ",
        b"1e3",
    ),
    *(
        b"0x10",
        b"9999999999",
        b"\t",
        b"\r",
        b"\n",
        b"\v",
        b"\f",
        b"\0",
        b"\x1c",
        b"\x85",
        b"\xa0",
        b"\xb2",
        b"\xd9\xa3",
    ),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"<!--7-->", b"<![CDATA[7]]>", b"<?a?>", b"<!DOCTYPE a>", b"<a/>", b"<a>", b"</a>"),
    *(
        b'<!DOCTYPE a [<!ENTITY b "7">]>',
        b"</Stroke>",
        b"<Stroke/>",
        b"<Point/>",
        b"</Point>",
        b"<StrokeSet>",
        b"</StrokeSet>",
    ),
    *(b'<Point x="1" y="2" time="3"/>', b'<Point y="1" x="2" time="3"/>', b"<Point x='1' y='2' time='3'/>", b"time"),
    *(b' x="1"', b' time="1"', b' xmlns="a"', b' a:x="1"', b"a:", b"utf-8", b"utf-16", b"utf-7", b"1.1", b"standalone"),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_slips_through_where_plain_files_are_read(hostile):
    content = plain_xml([[(10, -2)]])
    for at in range(len(content) + 1):
        assert_read_as_xml(content[:at] + hostile + content[at:])


@hypothesis_settings(deadline=None)
@given(st.data())
def test_plain_files_with_parts_moved_lost_and_put_in_are_read_as_any_xml(data):
    content = plain_xml(TWO_STROKES)
    for _ in range(data.draw(st.integers(1, 3))):
        first, last, to = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 3)))
        piece = data.draw(st.sampled_from([content[first:last], *HOSTILE]))
        content = data.draw(st.sampled_from([content[:first] + content[last:], content[:to] + piece + content[to:]]))
    assert_read_as_xml(content)


@pytest.mark.parametrize("size", [PLAIN_SIZE - 1, PLAIN_SIZE, 11_000_000])
def test_plain_files_of_any_size_are_read_as_any_xml(size):
    head, _, tail = plain_xml(TWO_STROKES).partition(b"<StrokeSet>")
    assert_read_as_xml(head + b" " * (size - len(head + tail) - len(b"<StrokeSet>")) + b"<StrokeSet>" + tail)


coordinate = st.integers(-20, 20)


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=8), min_size=1, max_size=4),
    st.floats(0.5, 60),
)
def test_no_stroke_keeps_a_step_longer_than_the_longest(strokes, max_step):
    points = parse_strokes(line_xml(strokes).encode())
    kept = without_long_steps(points, max_step)
    parts = np.split(kept, np.flatnonzero(kept[:, 2]) + 1)[:-1]
    assert len(parts) == len(strokes)
    for part, stroke in zip(parts, strokes, strict=True):
        assert tuple(part[0, :2]) == stroke[0]
        assert (np.linalg.norm(np.diff(part[:, :2], axis=0), axis=1) <= max_step).all()
    if max_step >= 57:  # the diagonal
        np.testing.assert_array_equal(kept, points)


def test_max_step_drops_points_out_of_reach_and_moves_the_end_of_the_stroke(tmp_path):
    add_line(tmp_path, "a01-000u-01", line_xml([[(0, 0), (900, 0), (10, 0), (0, 800)], [(5000, 0), (5001, 0)]]))
    (record,), _ = read_all(IamOnDB(tmp_path, max_step=500))
    np.testing.assert_array_equal(record.points, [[0, 0, 0], [10, 0, 1], [5000, 0, 0], [5001, 0, 1]])
    (record,), _ = read_all(IamOnDB(tmp_path))
    assert len(record.points) == 6


@hypothesis_settings(deadline=None)
@given(st.text("a %\r\n", max_size=30))
def test_any_transcription_gives_lines_or_a_reason(text):
    result = outcome(transcribed, f"OCR:\n\nb\n\nCSR:\n\n{text}")
    if isinstance(result, str):
        assert not text.strip()
    else:
        assert all(line == line.strip() for line in result)
        assert "".join(result).replace(" ", "") == re.sub(r"%{5,}|\s", "", text)


def test_hidden_files_are_not_lines(root):
    (root / "lineStrokes" / "a01" / "._a01-000u-01.xml").write_text("not XML")
    assert len(read_all(IamOnDB(root))[0]) == 10


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda root: None, "nowhere", "nowhere is not a folder; .*lineStrokes-all.tar.gz"),
        (lambda root: (root / "file").touch(), "file", "file is not a folder"),
        (lambda root: None, ".", "holds no folder lineStrokes; .*lineStrokes-all.tar.gz"),
        (lambda root: (root / "lineStrokes" / "a01").mkdir(parents=True), ".", r"holds no line files \(.xml\)"),
        (lambda root: (root / "U1S1.TXT").write_text("0\n"), ".", "holds no folder lineStrokes"),
        (lambda root: add_line(root, "a01-000u-01"), "lineStrokes", "lineStrokes itself; name its parent, /"),
    ],
)
def test_a_folder_that_is_not_the_data_set_is_refused(tmp_path, make, name, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        IamOnDB(tmp_path / name).sources()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--data DIR .*lineStrokes"),
        ({"root": Path(), "protocol": "official2"}, "did you mean 'official'"),
        ({"root": Path(), "max_step": -1.0}, "max_step of iamondb is -1.0"),
        ({"root": Path(), "max_step": float("nan")}, "max_step of iamondb is nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        IamOnDB(**options)


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("SEQDENS_IAMONDB"):
        pytest.skip("SEQDENS_IAMONDB names no folder of IAM-OnDB")
    lists = os.environ.get("SEQDENS_IAMONDB_LISTS")
    data = IamOnDB(Path(os.environ["SEQDENS_IAMONDB"]), lists=Path(lists) if lists else None)
    return data, *read_all(data)


def test_real_folder_holds_every_line(real):
    data, records, skipped = real
    placeholders = sum(int(skip.reason.rpartition(": ")[2]) for skip in skipped)
    unlisted = sum(int(note.split(": ")[1].split()[0]) for note in data.notes if note.startswith("left out"))
    assert len(records) + placeholders + unlisted == 12_195
    assert all(record.text for record in records)


def test_real_lists_give_the_lines_and_statistics_of_the_paper(real):
    data, records, _ = real
    if "lists in" not in data.notes[0]:
        pytest.skip("the official lists are neither beside the data nor in SEQDENS_IAMONDB_LISTS")
    assert Counter(record.split for record in records) == {"train": 10_741, "valid": 1_438}
    train = [np.diff(record.points[:, :2].astype(float), axis=0) for record in records if record.split == "train"]
    offsets = np.concatenate(train)
    assert len(offsets) == 6_750_028
    np.testing.assert_allclose(offsets.mean(0), [8.1787, 0.1116], atol=5e-5)
    np.testing.assert_allclose(offsets.std(0), [41.954, 37.124], atol=5e-4)


def test_real_line_files_are_plain_and_read_as_any_xml(real):
    for source in real[0].sources():
        for path in source.paths:
            if path.suffix == ".xml":
                content = path.read_bytes()
                assert PLAIN.fullmatch(content), path
                np.testing.assert_array_equal(parse_strokes(content), xml_points(content))
