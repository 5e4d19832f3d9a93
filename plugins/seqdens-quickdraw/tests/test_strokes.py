"""Strokes: how near the simplified are, and what changes nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from seqdens_quickdraw import strokes as module
from seqdens_quickdraw.strokes import MOST_ROUNDS, SIDE, bend, of_stroke3, scale, simplify, to_points

COORDINATE = st.floats(0, 255).map(lambda value: round(value, 2))
STROKE = st.integers(1, 12).flatmap(lambda n: arrays(float, (n, 3), elements=COORDINATE))
WHOLE = st.lists(
    st.integers(1, 5).flatmap(lambda n: arrays(int, (n, 2), elements=st.integers(-99, 99))), min_size=1, max_size=4
)


def distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """From a segment, by trying places on it."""
    places = np.linspace(0, 1, 1001)[:, None]
    return float(np.hypot(*(start + places * (end - start) - point).T).min())


@given(STROKE, st.sampled_from([0.0, 2.0, 20.0]))
def test_simplified_strokes_are_as_near_as_epsilon(stroke: np.ndarray, epsilon: float) -> None:
    found = simplify(stroke, epsilon)
    rest = iter(stroke.tolist())
    assert all(point in rest for point in found.tolist()), "points are kept in order, with all their columns"
    assert found[0].tolist() == stroke[0].tolist()
    assert found[-1].tolist() == stroke[-1].tolist()
    ink = found[:, :2] if len(found) > 1 else found[[0, 0], :2]
    for point in stroke[:, :2]:
        assert min(distance(point, *ends) for ends in pairwise(ink)) <= epsilon + 0.5


@given(STROKE, st.floats(0, 50))
def test_simplifying_again_changes_nothing(stroke: np.ndarray, epsilon: float) -> None:
    once = simplify(stroke, epsilon)
    np.testing.assert_array_equal(simplify(once, epsilon), once)


def test_a_straight_stroke_is_two_points_and_a_loop_is_not() -> None:
    ramp = np.linspace(0, 100, 11)
    assert simplify(np.column_stack([ramp, 2 * ramp]), 0.01).tolist() == [[0, 0], [100, 200]]
    turns = np.linspace(0, 2 * np.pi, 40)
    assert len(simplify(100 * np.column_stack([np.cos(turns), np.sin(turns)]), 2)) > 8


def test_a_stroke_that_goes_to_and_fro_without_end_is_kept_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, distances = [], module._distances
    monkeypatch.setattr(module, "_distances", lambda *given: rounds.append(1) or distances(*given))
    zigzag = np.column_stack([np.zeros(1500), SIDE * (-1.0) ** np.arange(1500)])
    zigzag[-1] = 0
    np.testing.assert_array_equal(simplify(zigzag, 2), zigzag)
    assert len(rounds) == MOST_ROUNDS


def test_a_drawing_is_scaled_to_its_longer_side() -> None:
    strokes = [np.array([[10.0, 20, 500], [20, 70, 540]]), np.array([[15.0, 120, 900]])]
    found = scale(strokes)
    np.testing.assert_allclose(found[0], [[0, 0, 0], [0.1 * SIDE, 0.5 * SIDE, 40]])
    np.testing.assert_allclose(found[1], [[0.05 * SIDE, SIDE, 400]])
    with pytest.raises(ValueError, match="all its points are one"):
        scale([np.array([[3.0, 4, 0], [3, 4, 9]])])


@given(WHOLE)
def test_stroke3_and_points_say_the_same(strokes: list[np.ndarray]) -> None:
    points = to_points([stroke.astype(float) for stroke in strokes])
    assert points.dtype == np.int32
    assert points[:, 2].sum() == len(strokes)
    assert points[:, 3].tolist() == [0] * (len(points) - 1) + [1]
    rows = np.column_stack([np.diff(points[:, :2], axis=0, prepend=0), points[:, 2]])
    assert [stroke.tolist() for stroke in of_stroke3(rows)] == [stroke.tolist() for stroke in strokes]


@pytest.mark.parametrize("value", [1e20, 1e308, np.inf, -np.inf, np.nan, 2.0**31])
def test_rows_that_lead_beyond_32_bits_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="its rows lead beyond 32 bits"):
        of_stroke3(np.array([[1, 2, 0], [3, value, 0], [3, value, 1]]))


def test_points_between_whole_numbers_are_kept() -> None:
    assert to_points([np.array([[0.5, 1], [2, 3]])]).tolist() == [[0.5, 1, 0, 0], [2, 3, 1, 1]]


def test_a_bent_drawing_is_near_the_drawing_and_never_the_same() -> None:
    strokes = [np.column_stack([np.linspace(0, SIDE, 20), np.linspace(SIDE, 0, 20), np.arange(20)])] * 2
    first, second = (bend(strokes, np.random.default_rng(seed)) for seed in (1, 2))
    assert [each.shape for each in first] == [each.shape for each in strokes]
    np.testing.assert_array_equal(first[0][:, 2], strokes[0][:, 2])
    moved = np.hypot(*(first[0] - strokes[0])[:, :2].T)
    assert 0.1 < moved.max() < SIDE / 2
    assert not np.allclose(first[0], second[0])
    np.testing.assert_array_equal(bend(strokes, np.random.default_rng(1))[1], first[1])
