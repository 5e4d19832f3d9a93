"""InkML: differences, channels, contexts, groups and annotations, and files that are damaged or hostile."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import seqdens_unipen.inkml
from hypothesis import given, settings
from hypothesis import strategies as st
from seqdens_unipen import InkML
from seqdens_unipen.inkml import Format, decoded

import seqdens
from seqdens import Record, Skipped
from seqdens.testing import DatasetContract

XY = Format()
NAMESPACE = 'xmlns="http://www.w3.org/2003/InkML"'


class TestInkML(DatasetContract):
    dataset = seqdens.dataset("inkml", split="record")
    impossible = (("split", "page"),)

    def make_files(self, root: Path) -> None:
        for name in ("a.inkml", "b.inkml", "c.INKML"):
            groups = (f"<traceGroup><trace>0 {i}, 5 5, '1 '1</trace></traceGroup>" for i in range(8))
            (root / name).write_text(f"<ink {NAMESPACE}>{''.join(groups)}</ink>")


def items(root: Path, content: str | bytes, **options: str) -> list[Record | Skipped]:
    (root / "a.inkml").write_bytes(content if isinstance(content, bytes) else content.encode())
    data = InkML(root, **options)
    return list(data.read(data.sources()[0]))


def records(root: Path, *children: str) -> list[Record]:
    found = items(root, f"<ink {NAMESPACE}>{''.join(children)}</ink>")
    assert [item for item in found if isinstance(item, Skipped)] == []
    return [item for item in found if isinstance(item, Record)]


def reason(root: Path, *children: str) -> str:
    (skipped,) = items(root, f"<ink {NAMESPACE}>{''.join(children)}</ink>")
    assert skipped.path == str(root / "a.inkml")
    return skipped.reason


def ink(record: Record) -> list[list[float]]:
    """x, y and whether a stroke ends there, which the last one does by the end of the sequence."""
    x, y, stroke_end, sequence_end = record.points.T
    assert np.flatnonzero(sequence_end).tolist() == [len(x) - 1]
    assert not stroke_end[-1]
    return np.column_stack([x, y, stroke_end + sequence_end]).tolist()


def test_the_trace_of_the_recommendation() -> None:
    """Its example of differences: X and Y in every point, two booleans in some."""
    trace = """1125 18432,'23'43,"7"-8,3-5,7 -3,6 2,6 8,3 6 T,2 4*T,3 6,3-6 F F"""
    x = [1125, 1148, 1178, 1211, 1251, 1297, 1349, 1404, 1461, 1521, 1584]
    y = [18432, 18475, 18510, 18540, 18567, 18596, 18633, 18676, 18723, 18776, 18823]
    found = decoded(trace, Format(("X", "Y", "B1", "B2"), 2))
    assert found.tolist() == [list(point) for point in zip(x, y, strict=True)]


@pytest.mark.parametrize(
    ("trace", "points"),
    [
        ("10 0, 9 14, 8 28", [[10, 0], [9, 14], [8, 28]]),
        ("\n  10   0 ,\t9 14,\n", [[10, 0], [9, 14]]),
        ("1-2,-3 4,.5.25", [[1, -2], [-3, 4], [0.5, 0.25]]),
        ("1.5e1 -2E-1,+3 4.", [[15, -0.2], [3, 4]]),
        ("#1F-#a,- 3 - 4", [[31, -10], [-3, -4]]),
        ("1 2,* 5,**", [[1, 2], [1, 5], [1, 5]]),
        ("1 2,'3'0,* 1,**", [[1, 2], [4, 2], [7, 3], [10, 4]]),
        ("0 0,'1'1,\"1\"0,**,!9!9,**", [[0, 0], [1, 1], [3, 2], [6, 3], [9, 9], [9, 9]]),
        ("0 0,\"2'3", [[0, 0], [2, 3]]),
        ("", []),
        (" ", []),
    ],
)
def test_values_are_decoded(trace: str, points: list[list[float]]) -> None:
    np.testing.assert_allclose(decoded(trace, XY), np.reshape(points, (-1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("1 2,3", "point 2 is '3', but the channels are 'X Y'"),
        ("1 2 3", "point 1 is '1 2 3', but the channels are 'X Y'"),
        ("1 2,,3 4", "point 2 is '', but the channels are 'X Y'"),
        ("1 2,3 x", "'x' is no value"),
        ("1 2;3 4", "';3 4' is no value"),
        ("1 2,3 ''4", "\"''4\" is no value"),
        ("1 ?", "a value of X or Y is '?', not a number"),
        ("1 T", "a value of X or Y is 'T', not a number"),
        ("* 1", "begins with '*'"),
        ("'1 1", "begins with a difference (')"),
        ("1 2147483648", "'2147483648' is not a number of 32 bits"),
        ("1 1e400", "'1e400' is not a number of 32 bits"),
        (f"1 {'9' * 5000}", "... is too long for a number"),
        (f"1 #{'F' * 39}", "is not a number of 32 bits"),
        ("1 2,'2147483647'0", "its differences lead beyond 32 bits"),
        (f"1 2,'9\"1000000000,{','.join(['**'] * 9)}", "its differences lead beyond 32 bits"),
    ],
)
def test_other_values_are_refused(trace: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        decoded(trace, XY)
    assert expected in str(refused.value)


VALUES = st.integers(-(10**6), 10**6)


@given(st.lists(st.tuples(VALUES, VALUES, st.sampled_from("!'\""), st.booleans()), min_size=1, max_size=12))
@settings(deadline=None)
def test_differences_lead_back_to_the_coordinates(steps: list[tuple[int, int, str, bool]]) -> None:
    points = [step[:2] for step in steps]
    prefixes = ["!", *(step[2] for step in steps[1:])]
    spoken = [step[3] for step in steps]  # a prefix that has not changed may stand there or not
    columns = (encoded([point[axis] for point in points], prefixes, spoken) for axis in (0, 1))
    assert decoded(",".join(map(" ".join, zip(*columns, strict=True))), XY).tolist() == [list(p) for p in points]


def encoded(values: list[int], prefixes: list[str], spoken: list[bool]) -> Iterable[str]:
    before, last = "!", None
    for index, (prefix, said) in enumerate(zip(prefixes, spoken, strict=True)):
        first, second = values[max(0, index - 1)], values[max(0, index - 2)]
        written = values[index] - {"!": 0, "'": first, '"': 2 * first - second}[prefix]
        silent = prefix == before and not said
        yield "*" if silent and written == last else f"{'' if silent else prefix}{written}"
        before, last = prefix, written


def test_a_file_is_a_record_of_its_traces(tmp_path: Path) -> None:
    annotations = '<annotation type="Truth"> $a \n b$</annotation><annotation type="writer">w7</annotation>'
    (record,) = records(tmp_path, annotations, "<trace>1 2,3 4</trace><trace/><trace type='penDown'>5 6</trace>")
    assert (record.id, record.text, record.label, record.group) == ("a.inkml", "$a b$", "$a b$", "w7")
    assert (ink(record), record.points.dtype) == ([[1, 2, 0], [3, 4, 1], [5, 6, 1]], np.int32)


def test_outermost_groups_are_records_of_their_own(tmp_path: Path) -> None:
    inner = '<traceGroup><annotation type="truth">no</annotation><trace>5 5</trace></traceGroup>'
    label = '<annotation type="label">L</annotation>'
    found = records(
        tmp_path,
        f'<traceGroup><annotation type="truth">one</annotation>{label}<trace>1 1</trace>{inner}</traceGroup>',
        "<trace>8 8,9 9</trace>",
        f"<traceGroup>{label}<trace>2 2,3 3</trace></traceGroup>",
        '<traceView traceDataRef="#t"/>',
    )
    assert [(record.id, record.text, record.label) for record in found] == [
        ("a.inkml", "", ""),
        ("a.inkml/1", "one", "L"),
        ("a.inkml/2", "L", "L"),
    ]
    assert ink(found[1]) == [[1, 1, 1], [5, 5, 1]]


def test_pens_in_the_air_are_not_ink_and_a_continued_trace_is_one_stroke(tmp_path: Path) -> None:
    (record,) = records(
        tmp_path,
        '<trace continuation="begin">1 1</trace><trace continuation="middle" type="penDown">2 2</trace>',
        '<trace continuation="end">3 3</trace><trace type="penUp">9 9</trace><trace>4 4</trace>',
    )
    assert ink(record) == [[1, 1, 0], [2, 2, 0], [3, 3, 1], [4, 4, 1]]


FORCE = (
    '<traceFormat xml:id="f"><channel name="F"/><channel name="Y" orientation="-ve"/><channel name="X"/></traceFormat>'
)


@pytest.mark.parametrize(
    ("before", "reference"),
    [
        (FORCE, ""),
        (f"<context>{FORCE}</context>", ""),
        (f'<definitions>{FORCE}<context xml:id="c" traceFormatRef="#f"/></definitions>', 'contextRef="#c"'),
        (f'<definitions><context xml:id="c">{FORCE}</context></definitions>', 'contextRef="#c"'),
        (f'<context xml:id="c"><inkSource xml:id="s">{FORCE}</inkSource></context>', ""),
        (f'<definitions><inkSource xml:id="s">{FORCE}</inkSource></definitions><context inkSourceRef="#s"/>', ""),
        (f'<definitions><context id="c">{FORCE}</context></definitions><context contextRef="#c"/>', ""),
    ],
)
def test_channels_are_those_of_the_format(tmp_path: Path, before: str, reference: str) -> None:
    trace = "<trace>0.5 20 10, 0.6 21 11</trace>"
    expected = [[10, -20, 0], [11, -21, 1]]
    (record,) = records(tmp_path, before, f"<trace {reference}>{trace.removeprefix('<trace>')}")
    assert ink(record) == expected
    (grouped,) = records(tmp_path, before, f"<traceGroup {reference}>{trace}</traceGroup>")
    assert ink(grouped) == expected


def test_a_context_holds_until_the_next(tmp_path: Path) -> None:
    (record,) = records(
        tmp_path,
        "<trace>1 2</trace>",
        f"<context>{FORCE}</context><trace>0 4 3</trace>",
        '<trace contextRef="#DefaultContext">5 6</trace>',
        "<context/><trace>7 8</trace>",
    )
    assert ink(record) == [[1, 2, 1], [3, -4, 1], [5, 6, 1], [7, 8, 1]]


def test_intermittent_channels_may_be_left_out(tmp_path: Path) -> None:
    some = '<intermittentChannels><channel name="B1"/></intermittentChannels>'
    form = f'<traceFormat><channel name="X"/><channel name="Y"/>{some}</traceFormat>'
    (record,) = records(tmp_path, form, "<trace>1 2,3 4 T,5 6 ?</trace>")
    assert ink(record) == [[1, 2, 0], [3, 4, 0], [5, 6, 1]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<trace>1 2</trace>", "1 point(s) with the pen down: nothing to predict"),
        ("", "0 point(s) with the pen down"),
        ("<traceGroup/>", "trace group 1: 0 point(s)"),
        ("<trace>1 2,3 4</trace><trace>1 2,</trace><trace>\n1</trace>", "trace 3 (line 1): point 1 is '1'"),
        ('<trace contextRef="#no">1 2</trace>', "refers to '#no', which is not in the file"),
        ('<trace contextRef="http://a.b/c.inkml#c">1 2</trace>', "which is not in the file"),
        ('<traceFormat><channel name="X"/></traceFormat><trace>1</trace>', "its channels are 'X', without X or Y"),
        ('<context xml:id="c" contextRef="#c"/><trace>1 2</trace>', "more than 8 contexts refer to each other"),
    ],
)
def test_a_damaged_record_is_skipped(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in reason(tmp_path, content)


def test_a_damaged_record_costs_only_itself(tmp_path: Path) -> None:
    groups = (f"<traceGroup><trace>{trace}</trace></traceGroup>" for trace in ("1 1,2 2", "1 1,x", "3 3,4 4"))
    first, bad, last = items(tmp_path, f"<ink>{''.join(groups)}</ink>")
    assert (first.id, last.id) == ("a.inkml/1", "a.inkml/3")
    assert bad.reason == "trace group 2: trace 1 (line 1): 'x' is no value"


LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not well-formed XML: "),
        (b"\x00\xff", "is not well-formed XML: "),
        (b"<ink><trace>1 2,3\x00 4</trace></ink>", "is not well-formed XML: "),
        (b"<ink><trace>1 2,3 4</trace>", "is not well-formed XML: "),
        (b"<svg/>", "is XML of 'svg', not of 'ink'"),
        (b'<!DOCTYPE ink [<!ENTITY a "1 2,3 4">]><ink><trace>&a;</trace></ink>', "declares XML entities"),
        (b'<!DOCTYPE ink [<!ENTITY a SYSTEM "/etc/hostname">]><ink>&a;</ink>', "declares XML entities"),
        (
            f'<!DOCTYPE ink [<!ENTITY a0 "1 2,">{LAUGHS}]><ink><trace>&a9;</trace></ink>'.encode(),
            "(declares XML entities|is not well-formed XML: )",
        ),
        (f'<!DOCTYPE ink [<!ENTITY a0 "1 2,">{LAUGHS}]><ink id="&a9;"/>'.encode(), "is not well-formed XML: "),
        (b"<ink>" + b"<traceGroup>" * 300 + b"</traceGroup>" * 300 + b"</ink>", "is not well-formed XML: "),
        (b"<ink><trace>" + b"1 1," * 2_600_000 + b"1 1</trace></ink>", "is not well-formed XML: "),
    ],
)
def test_hostile_and_damaged_files_are_skipped(tmp_path: Path, content: bytes, expected: str) -> None:
    (skipped,) = items(tmp_path, content)
    assert re.match(expected, skipped.reason)
    assert skipped.reason.isprintable()


MANY = '<context xml:id="c{}">' + '<inkSource contextRef="#c{}"/>' * 1000 + "</context>"
NESTED = "".join(MANY.format(depth, *[depth + 1] * 1000) for depth in range(3))


def test_contexts_that_lead_to_each_other_a_million_million_times_are_looked_at_once(tmp_path: Path) -> None:
    last = f'<context xml:id="c3">{"<inkSource/>" * 1000}</context>'
    (record,) = records(tmp_path, NESTED, last, '<trace contextRef="#c0">1 2,3 4</trace>')
    assert ink(record) == [[1, 2, 0], [3, 4, 1]]


def test_what_is_wrong_with_contexts_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, found = [], seqdens_unipen.inkml.format_of
    monkeypatch.setattr(seqdens_unipen.inkml, "format_of", lambda element: looked.append(element) or found(element))
    bad = '<traceFormat xml:id="f"><channel name="X"/></traceFormat><context xml:id="c" traceFormatRef="#f"/>'
    group = '<traceGroup><trace contextRef="#c">1 2,3 4</trace></traceGroup>'
    skipped = items(tmp_path, f"<ink>{bad}{group * 3}</ink>")
    assert [item.reason.partition(": ")[2] for item in skipped] == [
        "trace 1 (line 1): its channels are 'X', without X or Y"
    ] * 3
    assert len(looked) == 1


def test_channels_without_end_are_refused(tmp_path: Path) -> None:
    channels = '<channel name="X"/><channel name="Y"/>' * 100_000
    assert "it has 200000 channels, more than 100" in reason(
        tmp_path, f"<traceFormat>{channels}</traceFormat><trace>1 2,3 4</trace>"
    )


def test_blanks_without_end_are_refused_at_once(tmp_path: Path) -> None:
    assert "is no value" in reason(tmp_path, f"<trace>1 2,{' ' * 200_000}x</trace>")


def test_a_link_out_of_the_folder_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("<ink><trace>1 2,3 4</trace></ink>")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.inkml").symlink_to(tmp_path / "secret")
    data = InkML(tmp_path / "data")
    (skipped,) = [item for source in data.sources() for item in data.read(source)]
    assert skipped.reason.startswith("is a link that leads out of the folder")


def test_large_files_are_skipped_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seqdens_unipen.inkml, "LARGEST_FILE", 2**20)
    (skipped,) = items(tmp_path, b" " * (2**20 + 1))
    assert skipped.reason == "is larger than 1 MiB"


def test_files_without_a_namespace_or_with_a_prefix_are_read(tmp_path: Path) -> None:
    for content in ("<ink><trace>1 2,3 4</trace></ink>", '<i:ink xmlns:i="a"><i:trace>1 2,3 4</i:trace></i:ink>'):
        (record,) = items(tmp_path, content)
        assert ink(record) == [[1, 2, 0], [3, 4, 1]]


def test_splits_keep_a_writer_together(tmp_path: Path) -> None:
    for number in range(80):
        writer = f'<annotation type="writer">{number % 40}</annotation>' if number < 40 else ""
        (tmp_path / f"{number}.inkml").write_text(
            f"<ink>{writer}{'<traceGroup><trace>1 1,2 2</trace></traceGroup>' * 3}</ink>"
        )
    by_writer, by_record = (
        [item for source in data.sources() for item in data.read(source)]
        for data in (InkML(tmp_path), InkML(tmp_path, split="record"))
    )
    assert {record.split for record in by_writer} == {"train", "valid", "test"}
    assert len({(record.id.partition("/")[0], record.split) for record in by_writer}) == 80
    assert len({(record.id.partition("/")[0], record.split) for record in by_record}) > 80


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_anything_is_read_or_skipped_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(
        f"<ink><context>{FORCE}</context><trace>1 2 3,'4'5\"6,7 * 8</trace><trace>1 2</trace></ink>".encode()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        junk = st.one_of(st.binary(max_size=4), st.text("<>'\"*?TF#-.,! 0e", max_size=5).map(str.encode))
        content[at : at + data.draw(st.integers(0, 6))] = data.draw(junk)
    for item in items(tmp_path_factory.mktemp("any"), bytes(content)):
        if isinstance(item, Skipped):
            assert item.reason.isprintable()
        else:
            assert np.isfinite(item.points).all()


def test_it_says_how_it_is_split(tmp_path: Path) -> None:
    shares = "about 80 % train, 10 % valid, 10 % test"
    assert InkML(tmp_path).notes == (f"split by a hash of the writer, or of the file where none is named: {shares}",)
    assert InkML(tmp_path, split="record").notes == (f"split by a hash of the record: {shares}",)
