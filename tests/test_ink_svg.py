"""SVG drawings: path data, transforms, elements; nothing hostile is followed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.drawing import draw, strokes
from seqdens.errors import DataError
from seqdens.ink.svg import CURVE, path_strokes, read_svg, transform

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
pairs = st.tuples(numbers, numbers)


def svg(folder: Path, content: str, head: str = "") -> Path:
    path = folder / "drawing.svg"
    path.write_text(f'{head}<svg xmlns="http://www.w3.org/2000/svg">{content}</svg>')
    return path


def commands(letter: str) -> st.SearchStrategy[tuple[str, list[tuple[float, float]], str]]:
    """A command, its points, and what stands before them."""
    size = {"c": 3, "s": 2, "q": 2}.get(letter, 1)
    prefix = st.just("")
    if letter == "a":
        prefix = st.tuples(
            st.floats(1, 99), st.floats(1, 99), st.integers(-90, 90), st.sampled_from(["0 0", "0 1", "10"])
        )
        prefix = prefix.map(lambda values: " ".join(map(str, values)) + " ")
    return st.tuples(st.just(letter), st.lists(pairs, min_size=size, max_size=size), prefix)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from("mlcsqtahvz").flatmap(commands), min_size=1, max_size=8), pairs)
def test_absolute_and_relative_forms_give_the_same_points(drawn, start) -> None:
    position = begin = np.array(start)
    absolute = relative = f"M{start[0]},{start[1]}"
    for letter, points, prefix in drawn:
        away = np.array(points)
        there = position + away
        if letter == "z":
            absolute, relative, position = absolute + "Z", relative + "z", begin
            continue
        if letter in "hv":
            axis = "hv".index(letter)
            absolute += f"{letter.upper()}{there[0, axis]!s}"
            relative += f"{letter}{away[0, axis]!s}"
            position = np.where([axis == 0, axis == 1], there[0], position)
            continue
        absolute += letter.upper() + prefix + " ".join(f"{x!s},{y!s}" for x, y in there)
        relative += letter + prefix + " ".join(f"{x!s} {y!s}" for x, y in away)
        position = there[-1]
        begin = position if letter == "m" else begin
    for left, right in zip(path_strokes(absolute), path_strokes(relative), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_numbers_may_stand_without_spaces() -> None:
    (stroke,) = path_strokes("M.5.25-1-2L1e1+2")
    assert stroke.tolist() == [0.5 + 0.25j, -1 - 2j, 10 + 2j]
    assert len(path_strokes("M0 0a5 5 0 0110 0 5 5 0 01-10 0")[0]) == 1 + 2 * CURVE


def test_pairs_after_a_move_are_lines_and_after_a_closing_a_new_stroke_begins() -> None:
    strokes = path_strokes("m1 1 2 0 0 2z l1 1")
    assert [stroke.tolist() for stroke in strokes] == [[1 + 1j, 3 + 1j, 3 + 3j, 1 + 1j], [1 + 1j, 2 + 2j]]


def test_a_move_alone_draws_nothing_and_a_dot_is_a_stroke() -> None:
    assert [stroke.tolist() for stroke in path_strokes("M1 1 M2 2 h0 M3 3")] == [[2 + 2j, 2 + 2j]]


@pytest.mark.parametrize("middle", ["C0 2 2 4 4 4", "Q0 4 4 4"])
def test_curves_are_those_of_bernstein(middle: str) -> None:
    values = [complex(*map(float, pair.split(","))) for pair in ["0,0", *_pairs(middle)]]
    (stroke,) = path_strokes(f"M0 0{middle}")
    for t, point in zip(np.linspace(0, 1, CURVE + 1), stroke, strict=True):
        steps = values
        while len(steps) > 1:  # de Casteljau
            steps = [(1 - t) * left + t * right for left, right in pairwise(steps)]
        assert point == pytest.approx(steps[0])


def _pairs(command: str) -> list[str]:
    values = command[1:].split()
    return [f"{x},{y}" for x, y in zip(values[::2], values[1::2], strict=True)]


def test_smooth_curves_mirror_the_control_point_of_their_kind_alone() -> None:
    assert np.allclose(path_strokes("M0 0C0 1 1 2 2 2S4 1 4 0"), path_strokes("M0 0C0 1 1 2 2 2 3 2 4 1 4 0"))
    assert np.allclose(path_strokes("M0 0Q1 2 2 2T4 0"), path_strokes("M0 0Q1 2 2 2 3 2 4 0"))
    assert np.allclose(path_strokes("M0 0Q1 2 2 2S4 1 4 0"), path_strokes("M0 0Q1 2 2 2C2 2 4 1 4 0"))


@pytest.mark.parametrize(("large", "sweep", "centre"), [(0, 1, 10j), (1, 0, 10j), (0, 0, 10), (1, 1, 10)])
def test_arcs_lie_on_their_circle_and_turn_as_the_flags_say(large: int, sweep: int, centre: complex) -> None:
    (arc,) = path_strokes(f"M0 0A10 10 0 {large} {sweep} 10 10")
    np.testing.assert_allclose(abs(arc - centre), 10)
    turned = np.angle((arc[1:] - centre) / (arc[:-1] - centre)).sum()
    assert turned == pytest.approx((1 if sweep else -1) * np.pi * (1.5 if large else 0.5))


def test_an_arc_with_radii_too_small_reaches_its_end_and_one_without_is_a_line() -> None:
    (arc,) = path_strokes("M0 0A1 2 30 0 1 10 10")
    assert arc[-1] == 10 + 10j
    assert path_strokes("M0 0A0 2 30 0 1 10 10")[0].tolist() == [0j, 10 + 10j]


FUNCTIONS = "translate(3 4)|scale(2)|scale(1,-2)|rotate(30)|rotate(30 1 2)|skewX(10)|skewY(-20)|matrix(1 2 3 4 5 6)"


@settings(deadline=None)
@given(st.lists(st.sampled_from(FUNCTIONS.split("|")), max_size=5), pairs)
def test_transforms_compose(functions: list[str], point: tuple[float, float]) -> None:
    expected = np.array([*point, 1])
    for function in reversed(functions):
        expected = transform(function) @ expected
    np.testing.assert_allclose(transform(", ".join(functions)) @ [*point, 1], expected)


def test_a_rotation_about_a_point_keeps_it() -> None:
    np.testing.assert_allclose(transform("rotate(77, 3, 4)") @ [3, 4, 1], [3, 4, 1])
    np.testing.assert_allclose(transform("rotate(90)") @ [1, 0, 1], [0, 1, 1], atol=1e-12)


def test_groups_and_elements_are_drawn_in_order(tmp_path: Path) -> None:
    drawn = read_svg(
        svg(
            tmp_path,
            '<g transform="translate(10 0)"><g transform="scale(2)"><line x1="0" y1="0" x2="1px" y2="1"/></g>'
            '<polyline points="0,0 1,2"/></g><defs><path d="M0 0h9"/></defs><g display="none"><path d="M0 0h9"/></g>'
            '<polygon points="0 0 1 0 1 1"/><rect width="9" height="9"/><path d="M5 5v1"/><path/>',
        )
    )
    assert [stroke.tolist() for stroke in drawn] == [
        [[10, 0], [12, 2]],
        [[10, 0], [11, 2]],
        [[0, 0], [1, 0], [1, 1], [0, 0]],
        [[5, 5], [5, 6]],
    ]


def test_our_own_drawings_come_back(tmp_path: Path) -> None:
    line = np.array([[30, 0, 0], [0, 40, 1], [25, -40, 0], [7, 40, 1]])
    drawn = read_svg(draw([line], tmp_path / "line.svg"))
    for stroke, original in zip(drawn, strokes(line), strict=True):
        scale = np.ptp(np.concatenate(drawn), axis=0)[0] / np.ptp(np.concatenate(strokes(line)), axis=0)[0]
        np.testing.assert_allclose(stroke - drawn[0][0], original * scale, atol=0.02)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "draws no <path>"),
        ('<path d="L1 1"/>', "must begin with a move"),
        ('<path d="M0 0 L1"/>', "is not what may stand there"),
        ('<path d="M0 0 X1"/>', "'X1' is not what may stand there"),
        ('<path d="M0 0 zz5"/>', "is not what may stand there"),
        ('<path d="M0 0 A1 1 0 2 0 5 5"/>', "is not what may stand there"),
        ('<path d="M0 0 L1e300 1"/>', "thousand million"),
        ('<path d="M0 0 L1e999 1"/>', "thousand million"),
        ('<polyline points="1 2 3"/>', "odd number"),
        ('<g transform="spin(3)"/>', "'spin' of 1 numbers is no transform"),
        ('<g transform="scale(1"/>', "is not what may stand there"),
        ("<path", "is no XML"),
    ],
)
def test_what_is_malformed_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"cannot load .*drawing\.svg.*{message}"):
        read_svg(svg(tmp_path, content))


def test_too_many_points_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 500,000 points"):
        read_svg(svg(tmp_path, f'<path d="M0 0{"t1 1" * 21_000}"/>'))


def test_entities_are_refused_and_nothing_is_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("M0 0h1")
    external = f'<!DOCTYPE svg [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    bomb = '<!DOCTYPE svg [<!ENTITY a "M0 0h1">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 50}">' for before, name in pairwise("abcdefgh")
    ) + "]>"  # fmt: skip
    for head, content in ((external, "<g>&e;</g>"), (bomb, "<g>&h;</g>"), (bomb, '<path d="&h;"/>')):
        with pytest.raises(DataError, match=r"declares entities|is no XML"):
            read_svg(svg(tmp_path, content, head))


def test_a_document_type_alone_is_no_offence(tmp_path: Path) -> None:
    head = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
    assert len(read_svg(svg(tmp_path, '<path d="M0 0h1"/>', head))) == 1


def test_a_document_type_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "more.dtd").write_text('<!ENTITY more "M0 0h1">')
    head = f'<!DOCTYPE svg SYSTEM "{(tmp_path / "more.dtd").as_uri()}">'
    with pytest.raises(DataError, match="draws no <path>"):
        read_svg(svg(tmp_path, '<path d="&more;"/>', head))


def test_another_root_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "page.svg"
    with pytest.raises(DataError, match="No such file"):
        read_svg(path)
    path.write_text("<html/>")
    with pytest.raises(DataError, match="its root is <html>, but must be <svg>"):
        read_svg(path)


@settings(deadline=None, max_examples=150)
@given(st.text("MmLlAaZzQqTtCcSsHhVv0123456789.,- eE+", max_size=40))
def test_any_path_data_is_read_or_refused(data: str) -> None:
    try:
        found = path_strokes(data)
    except ValueError:
        return
    assert all(len(stroke) > 1 for stroke in found)
