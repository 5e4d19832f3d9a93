"""InkML files: the values of traces, trace formats, annotations."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.errors import DataError
from seqdens.ink.inkml import read_inkml, trace_values


def inkml(folder: Path, content: str, head: str = "") -> Path:
    path = folder / "line.inkml"
    path.write_text(f'{head}<ink xmlns="http://www.w3.org/2003/InkML">{content}</ink>')
    return path


def test_the_example_of_the_standard() -> None:
    """Section 3.2.2: explicit, first and second differences, a repeated value, spaces only where needed."""
    values = trace_values("""1125 18432,'23'43,"7"-8,3-5,7 -3,6 2,6 8,3 6,2 4,*6,3-2""")
    assert [x for x, _ in values] == [1125, 1148, 1178, 1211, 1251, 1297, 1349, 1404, 1461, 1520, 1582]
    assert [y for _, y in values] == [18432, 18475, 18510, 18540, 18567, 18596, 18633, 18676, 18723, 18776, 18827]


def test_what_each_sign_means() -> None:
    assert trace_values("1 2, * 3, !4'5, * *, '-1 !7") == [[1, 2], [1, 3], [4, 8], [4, 13], [3, 7]]
    assert trace_values("10 T,#1F F,-#A .5") == [[10, 1], [31, 0], [-10, 0.5]]
    assert np.isnan(trace_values("1 ?")[0][1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-999, 999), st.integers(-999, 999)), min_size=3, max_size=20))
def test_every_way_to_write_a_trace_gives_the_same_points(points: list[tuple[int, int]]) -> None:
    values = np.array(points)
    first = np.diff(values, axis=0)
    second = np.diff(first, axis=0)

    def rows(numbers: np.ndarray, sign: str) -> list[str]:
        return [" ".join(f"{sign}{value}" for value in row) for row in numbers]

    explicit = ",".join(rows(values, ""))
    differences = ",".join([*rows(values[:1], ""), *rows(first, "'")])
    seconds = ",".join([*rows(values[:1], "!"), *rows(first[:1], "'"), *rows(second, '"')])
    assert trace_values(explicit) == trace_values(differences) == trace_values(seconds) == values.tolist()


def test_traces_in_groups_are_read_in_order_and_the_pen_in_the_air_is_not(tmp_path: Path) -> None:
    recorded = read_inkml(
        inkml(
            tmp_path,
            '<annotation type="writer">me</annotation><annotation type="truth"> a\n b </annotation>'
            '<traceGroup><annotation type="truth">a</annotation><trace>0 0, 1 1</trace></traceGroup>'
            '<trace type="penUp">5 5, 6 6</trace><trace continuation="begin">2 2, 3 3</trace>'
            '<trace continuation="end">4 4, ? 9</trace>',
        )
    )
    assert recorded.text == "a b"
    assert [stroke.tolist() for stroke in recorded.strokes] == [[[0, 0], [1, 1]], [[2, 2], [3, 3], [4, 4]]]


def test_texts_of_groups_are_joined(tmp_path: Path) -> None:
    group = '<traceGroup><annotation type="transcription">{}</annotation><trace>0 0,1 0</trace></traceGroup>'
    assert read_inkml(inkml(tmp_path, group.format("one") + group.format("two"))).text == "one two"
    assert read_inkml(inkml(tmp_path, "<trace>0 0,1 0</trace>")).text == ""


def test_the_trace_format_says_where_x_and_y_are(tmp_path: Path) -> None:
    channels = '<channel name="T"/><channel name="Y" orientation="-ve"/><channel name="X"/>'
    recorded = read_inkml(inkml(tmp_path, f"<traceFormat>{channels}</traceFormat><trace>9 1 2, 9 3 4 5</trace>"))
    assert recorded.strokes[0].tolist() == [[2, -1], [4, -3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no <trace>"),
        ('<trace type="penUp">1 2</trace>', "no <trace>"),
        ("<trace></trace>", r"a trace has 0 channel\(s\)"),
        ("<trace>1, 2</trace>", r"a trace has 1 channel\(s\)"),
        ("<trace>1 two</trace>", "is no value of a trace"),
        ("<trace>1 1e300, 1 2</trace>", "further than"),
        ('<traceFormat><channel name="F"/></traceFormat><trace>1 2</trace>', "no channels X and Y, but F"),
        (
            '<traceFormat><channel name="X"/><channel name="Y"/></traceFormat>'
            '<traceFormat><channel name="Y"/><channel name="X"/></traceFormat><trace>1 2</trace>',
            "trace formats differ",
        ),
        ("<trace>", "is no XML"),
    ],
)
def test_what_is_malformed_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"cannot load .*line\.inkml.*{message}"):
        read_inkml(inkml(tmp_path, content))


def test_entities_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1 2, 3 4")
    head = f'<!DOCTYPE ink [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}">]>'
    with pytest.raises(DataError, match="declares entities"):
        read_inkml(inkml(tmp_path, "<trace>&e;</trace>", head))


@settings(deadline=None, max_examples=150)
@given(st.text("0123456789.,- '\"!*?#TFe", max_size=40))
def test_any_trace_is_read_or_refused(text: str) -> None:
    try:
        points = trace_values(text)
    except ValueError:
        return
    assert len(points) == text.count(",") + 1
