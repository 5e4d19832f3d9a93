"""Ink from elsewhere comes out in the size, the density and the pen speeds of training data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdens
from seqdens.drawing import strokes
from seqdens.ink.retrace import POINTS, STEP, retrace

STD = np.array([38.6, 33.1])
WAVE = np.linspace(0, 8 * np.pi, 100)
LINE = [np.column_stack([WAVE, np.sin(WAVE)]), np.array([[3.0, -2.0], [9.0, -2.0]]), np.array([[5.0, -3.0]])]


def steps_within(offsets: np.ndarray) -> np.ndarray:
    lifted = np.r_[False, offsets[:-1, 2] > 0]
    return np.hypot(*offsets[~lifted, :2].T)


def outline(offsets: np.ndarray) -> np.ndarray:
    ink = np.concatenate(strokes(offsets))
    return (ink - ink[0]) / np.ptp(ink, axis=0)[0]


@settings(deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.integers(4, 60))
def test_it_has_the_points_and_the_steps_of_the_model_s_data(scale: float, shift: float, characters: int) -> None:
    offsets = retrace([stroke * scale + shift * scale for stroke in LINE], characters, STD)
    assert offsets.dtype == np.float32
    assert len(offsets) == pytest.approx(POINTS * characters, rel=0.1)
    assert steps_within(offsets).mean() == pytest.approx(STEP * np.hypot(*STD), rel=0.05)
    assert offsets[:, 2].sum() == len(LINE)
    np.testing.assert_allclose(np.ptp(outline(offsets), axis=0)[1], 4 / (8 * np.pi), rtol=0.1)


def test_units_and_sampling_do_not_matter() -> None:
    fine = np.linspace(0, 8 * np.pi, 700)
    other = [np.column_stack([fine, np.sin(fine)]) * 1000, LINE[1] * 1000, LINE[2] * 1000]
    drawn, again = (strokes(retrace(ink, 10, STD)) for ink in (LINE, other))
    for stroke, same in zip(drawn, again, strict=True):
        np.testing.assert_allclose(stroke - drawn[0][0], same - again[0][0], atol=0.02 * np.ptp(drawn[0]))


def test_the_pen_is_slower_where_it_turns_and_at_the_ends_of_a_stroke() -> None:
    corner = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    offsets = retrace([corner], 6, STD)
    steps = steps_within(offsets)
    middle, quarter = len(steps) // 2, len(steps) // 4
    assert max(steps[middle - 1 : middle + 2].min(), steps[0], steps[-1]) < 0.75 * steps[quarter]


def test_a_line_of_the_embedded_set_comes_back_about_as_it_was() -> None:
    data = seqdens.load("hershey", lines=40, writers=20)
    sizes, counts, medians = [], [], []
    for record in range(len(data)):
        original = data.offsets(record)
        ink = [stroke * 0.01 for stroke in strokes(original)]
        again = retrace(ink, len(data.texts[record]), data.std)
        sizes.append(np.ptp(np.concatenate(strokes(again))[:, 0]) / np.ptp(np.concatenate(strokes(original))[:, 0]))
        counts.append(len(again) / len(original))
        medians.append(np.median(steps_within(again)) / np.median(steps_within(original)))
    assert np.median(sizes) == pytest.approx(1, abs=0.15)
    assert np.median(counts) == pytest.approx(1, abs=0.1)
    assert np.median(medians) == pytest.approx(1, abs=0.15)


def test_ink_without_extent_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not move"):
        retrace([np.zeros((1, 2)), np.ones((3, 2))], 2, STD)
