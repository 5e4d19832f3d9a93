"""Lines of ink on sheets: size, places, order, and what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqdens.datasets.hershey import hand, write
from seqdens.drawing import COLUMNS
from seqdens.errors import DataError, UsageError
from seqdens.offsets import to_offsets
from seqdens.pages.baseline import measure
from seqdens.pages.layout import PAPERS, Layout, lay_out

GAP = np.zeros((0, 3))
A5 = Layout(paper="A5", margin=15)


def line(text, writer=3, seed=0):
    """Offsets (T, 3) of a written line."""
    return to_offsets(write(text, *hand(7, writer), np.random.default_rng(seed)), COLUMNS)


def box(line):
    points = np.concatenate(line.strokes)
    return *points.min(axis=0), *points.max(axis=0)


def baselines(sheet):
    return np.array([measure(line.strokes).y for line in sheet.lines])


TEXTS = ["now we write a page", "of many lines", "each on its own", "one above another"]


def inks():
    """One to nine lines (T, 3) of any shape."""
    moves = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(-50, 50)))
    ink = moves.flatmap(
        lambda xy: arrays(np.int8, (len(xy), 1), elements=st.integers(0, 1)).map(lambda ends: np.hstack([xy, ends]))
    )
    return st.lists(ink, min_size=1, max_size=9)


@settings(deadline=None, max_examples=60)
@given(
    inks(),
    st.sampled_from(["left", "centre", "right"]),
    st.booleans(),
    st.sampled_from([None, 40.0]),
    st.lists(st.integers(0, 8)),
)
def test_nothing_leaves_the_margins_and_order_is_kept(lines, align, straighten, width, gaps):
    layout = Layout(paper="80x60", margin=5, line_height=7, align=align, straighten=straighten, width=width)
    texts = [f"line {number}" for number in range(len(lines))]
    for gap in gaps:
        lines, texts = [*lines[:gap], GAP, *lines[gap:]], [*texts[:gap], "", *texts[gap:]]
    try:
        sheets = lay_out(lines, texts, layout)
    except UsageError:
        with pytest.raises(UsageError, match=r"line \d+ .*is \d+ mm (wide|high)"):
            lay_out(lines, texts, layout)
        return
    assert [line.text for sheet in sheets for line in sheet.lines] == [text for text in texts if text]
    sizes = [len(ink) + 1 for ink in lines if len(ink)]
    assert [sum(map(len, line.strokes)) for sheet in sheets for line in sheet.lines] == sizes
    for sheet in sheets:
        assert (sheet.width, sheet.height) == (80, 60)
        for left, top, right, bottom in map(box, sheet.lines):
            assert min(left, top) > 5 - 0.01
            assert right < 75 + 0.01
            assert bottom < 55 + 0.01
            assert right - left < (width or 70) + 0.01


def test_lines_stand_on_baselines_at_equal_distances_and_gaps_are_lines():
    (sheet,) = lay_out([line(text) if text else GAP for text in [*TEXTS, "", *TEXTS]], [*TEXTS, "", *TEXTS], A5)
    np.testing.assert_allclose(baselines(sheet), 15 + 7 + 10 * np.array([0, 1, 2, 3, 5, 6, 7, 8]), atol=0.4)


def test_all_lines_have_one_scale_and_usual_letters_three_tenths_of_the_line_height():
    lines = [line(text, writer) for writer, text in enumerate(TEXTS)]
    (sheet,) = lay_out(lines, TEXTS, Layout(line_height=12, straighten=False))
    scales = [np.ptp(np.concatenate(drawn.strokes), axis=0) for drawn in sheet.lines]
    raw = [np.ptp(np.vstack([[0, 0], ink[:, :2].cumsum(axis=0)]), axis=0) for ink in lines]
    np.testing.assert_allclose(np.array(scales) / raw, scales[0][0] / raw[0][0], rtol=1e-3)
    assert np.median([measure(drawn.strokes).height for drawn in sheet.lines]) == pytest.approx(3.6, rel=0.02)


def test_capitals_have_the_size_of_capitals():
    (lower,) = lay_out([line("nonsense and more")], ["nonsense and more"], A5)
    (upper,) = lay_out([line("HELLO WORLD")], ["HELLO WORLD"], A5)
    heights = [measure(sheet.lines[0].strokes).height for sheet in (lower, upper)]
    assert heights[1] == pytest.approx(1.75 * heights[0], rel=0.05)


def test_the_widest_line_makes_all_smaller_until_letters_are_half_as_large():
    text = "a line of forty characters or some more"
    (narrow,) = lay_out([line(text), line("short")], [text, "short"], Layout(paper="150x100", width=80))
    (free,) = lay_out([line(text), line("short")], [text, "short"], Layout(paper="300x100"))
    left, _, right, _ = box(narrow.lines[0])
    assert right - left == pytest.approx(80, abs=0.01)
    ratios = [np.ptp(np.concatenate(narrow.lines[i].strokes), axis=0) for i in (0, 1)]
    wanted = [np.ptp(np.concatenate(free.lines[i].strokes), axis=0) for i in (0, 1)]
    np.testing.assert_allclose(np.array(ratios) / wanted, ratios[0][0] / wanted[0][0], rtol=0.01)
    with pytest.raises(UsageError, match=r"line 1 of 39 characters is \d+ mm wide, but may fill 40 mm: wrap"):
        lay_out([line(text), line("short")], [text, "short"], Layout(paper="150x100", width=40))


@pytest.mark.parametrize(("align", "place"), [("left", 0), ("centre", 0.5), ("right", 1)])
def test_alignment(align, place):
    (sheet,) = lay_out([line(text) for text in TEXTS], TEXTS, Layout(align=align, width=120))
    corner = 20 + place * (170 - 120)
    for left, _, right, _ in map(box, sheet.lines):
        assert left - corner == pytest.approx(place * (120 - (right - left)), abs=0.001)


def test_a_full_sheet_is_followed_by_another_which_no_gap_begins():
    texts = [*(["mmm"] * 5), "", "nnn", "ooo"]
    layout = Layout(paper="100x70", margin=10)  # five lines of 10 mm
    first, second = lay_out([line(text) if text else GAP for text in texts], texts, layout)
    assert [drawn.text for drawn in first.lines] == ["mmm"] * 5
    assert [drawn.text for drawn in second.lines] == ["nnn", "ooo"]
    np.testing.assert_allclose(baselines(second), baselines(first)[:2], atol=0.5)


@pytest.mark.parametrize(("number", "length"), [(0, -30), (1, -30), (2, 30), (0, 32), (3, 32)])
def test_strokes_far_above_or_below_a_line_move_it_between_the_margins(number, length):
    layout = Layout(paper="100x70", margin=10)
    lines = [line("mummum") for _ in range(5)]
    unit = np.ptp(lines[0][:, 1].cumsum()) / 3
    lines[number] = np.vstack([lines[number], [[unit, 0, 0], [0, length * unit, 1]]])
    lines[number][-3, 2] = 1
    sheets = lay_out(lines, ["mummum"] * 5, layout)
    boxes = [box(drawn) for sheet in sheets for drawn in sheet.lines]
    assert min(top for _, top, _, _ in boxes) > 10 - 0.01
    assert max(bottom for _, _, _, bottom in boxes) < 60 + 0.01
    assert boxes[number][3] - boxes[number][1] > 35
    assert sum(len(sheet.lines) for sheet in sheets) == 5


@pytest.mark.parametrize("straighten", [True, False])
def test_a_rising_line_is_made_level_if_wished(straighten):
    ink = line("something that rises to the right")
    ink[:, :2] = ink[:, :2] @ [[1, -0.1], [0.1, 1]]
    (sheet,) = lay_out([ink], ["something that rises to the right"], Layout(straighten=straighten))
    assert measure(sheet.lines[0].strokes).slope == pytest.approx(0 if straighten else -0.1, abs=0.02)


def test_a_scale_can_be_given():
    ink = np.array([[10, 0, 0], [0, -20, 1]])
    (drawn,) = lay_out([ink], ["l"], Layout(straighten=False), scale=0.5)[0].lines
    np.testing.assert_allclose(np.ptp(drawn.strokes[0], axis=0), [5, 10])


@pytest.mark.parametrize("text", [".", "-", "...", ""])
@pytest.mark.parametrize("ink", [[[0, 0, 1]], [[100, 0, 1]]])
def test_ink_without_letters_is_laid_out(ink, text):
    (sheet,) = lay_out([np.array(ink)], [text], A5)
    assert box(sheet.lines[0])[0] == pytest.approx(15)
    assert np.ptp(sheet.lines[0].strokes[0], axis=0).max() < 12


@pytest.mark.parametrize(
    ("paper", "size"), [*PAPERS.items(), ("a4", (210, 297)), ("297x210", (297, 210)), ("20.5X9e1", None)]
)
def test_paper(paper, size):
    if size:
        assert Layout(paper=paper).size == size
    else:
        with pytest.raises(UsageError, match=r"20\.5X9e1.*A3, A4, A5, A6, letter, legal, or a width"):
            Layout(paper=paper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paper": "B9"}, "paper 'B9'"),
        ({"paper": "0x50"}, "paper '0x50'.*from 10 to 2000 mm"),
        ({"margin": 105}, "margin of 105 mm leaves nothing of paper of 210 x 297 mm"),
        ({"margin": -1}, "margin of -1 mm"),
        ({"margin": float("nan")}, "margin of nan"),
        ({"line_height": 0}, "line height of 0 mm"),
        ({"line_height": 258}, "line height of 258 mm.*the 257 mm between"),
        ({"width": 171}, "width of 171 mm.*the 170 mm between"),
        ({"width": 0}, "width of 0 mm"),
        ({"align": "center"}, "'center' does not exist: it must be one of left, centre, right"),
    ],
)
def test_a_layout_that_leaves_nothing_to_write_on_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Layout(**options)


@pytest.mark.parametrize(
    ("lines", "texts", "options", "error", "message"),
    [
        ([], [], {}, UsageError, "no lines"),
        ([GAP], [""], {}, UsageError, "no lines"),
        ([np.ones((3, 3))], [], {}, UsageError, "0 texts for 1 lines"),
        ([np.ones((3, 2))], ["a"], {}, UsageError, r"must be numbers \(T, 3\)"),
        ([np.full((3, 3), np.nan)], ["a"], {}, DataError, "not finite"),
        ([np.ones((3, 3))], ["a"], {"scale": 0}, UsageError, "scale of 0"),
        ([np.array([[0, 900, 0]])], ["a"], {"scale": 1}, UsageError, "line 1 is 900 mm high.*257 mm between"),
    ],
)
def test_what_cannot_be_laid_out(lines, texts, options, error, message):
    with pytest.raises(error, match=message):
        lay_out(lines, texts, Layout(), **options)


def test_about_so_many_characters_fit_a_line():
    text = "and so on and on and on it goes without an end"
    layout = Layout(width=100)
    (sheet,) = lay_out([line(text[: layout.characters()])], [text[: layout.characters()]], layout)
    left, _, right, _ = box(sheet.lines[0])
    assert 60 < right - left <= 100.01
    assert layout.characters(advance=1e9) == 1
