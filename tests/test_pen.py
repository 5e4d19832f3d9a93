"""Pens: what is none, colours, and lines that are thicker where the pen is slow."""

import numpy as np
import pytest

from seqdens.errors import UsageError
from seqdens.pages.layout import Line, Sheet
from seqdens.pages.pen import Pen, shapes


def sheet_of(*strokes):
    return Sheet(100, 100, [Line("text", [np.array(stroke, float) for stroke in strokes])])


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf"), 21])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(UsageError, match=r"mm wide draws nothing: it must be more than 0, at most 20"):
        Pen(width=width)


@pytest.mark.parametrize("colour", ["", "none", "blu", "#12", "#11223300", '"/><script>'])
def test_a_colour_that_is_none_is_refused(colour):
    with pytest.raises(UsageError, match=r"a colour .* does not exist: it must be opaque"):
        Pen(colour=colour)


@pytest.mark.parametrize(("colour", "written"), [("navy", "#000080"), ("#AbCdEf", "#abcdef"), ("0.5", "#808080")])
def test_colours(colour, written):
    assert Pen(colour=colour).hex == written


def test_a_variable_pen_is_thicker_where_it_is_slow():
    x = np.concatenate([np.arange(0, 20, 0.5), np.arange(20, 60, 2.0)])
    stroke = np.stack([x, np.full(len(x), 50)], axis=1)
    ((polygon,),) = shapes(sheet_of(stroke), Pen(width=0.5, variable=True))
    heights = [np.ptp(polygon[np.abs(polygon[:, 0] - at) < 1.5, 1]) for at in (10, 50)]
    assert 0.5 <= heights[0] <= 0.75 + 1e-6
    assert 0.2 < heights[1] < 0.6 * heights[0]


@pytest.mark.parametrize("points", [[[5, 5]], [[5, 5]] * 9, [[5, 5], [5, 5], [6, 5]]])
def test_a_variable_pen_draws_dots_and_pauses(points):
    ((polygon, _),) = shapes(sheet_of(points, [[0, 0], [5, 5], [9, 9]]), Pen(width=1.0, variable=True))
    assert 0.9 < np.ptp(polygon[:, 1]) < 1.6


def test_a_plain_pen_draws_curves():
    ((drawn,),) = shapes(sheet_of([[0, 0], [5, 5], [9, 0]]), Pen())
    assert drawn.shape == (7, 2)
