"""Smooth curves through points, points on them, and outlines around a pen of varying width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqdens.pages.curves import curve, distinct, flatten, outline


def strokes(least=1):
    """Points (n, 2) to a hundredth of a mm, some the same."""
    return st.integers(least, 12).flatmap(
        lambda n: arrays(np.float64, (n, 2), elements=st.integers(-500, 500).map(lambda value: value / 100))
    )


@settings(deadline=None)
@given(strokes())
def test_a_curve_goes_through_all_points_and_never_far_from_the_way_between_them(points):
    drawn = curve(points)
    kept = distinct(points)
    np.testing.assert_allclose(drawn[::3], kept, atol=1e-12)
    assert len(drawn) == 3 * len(kept) - 2
    lengths = np.linalg.norm(np.diff(kept, axis=0), axis=1)
    before = np.linalg.norm(drawn[1::3] - drawn[:-1:3], axis=1)
    after = np.linalg.norm(drawn[3::3] - drawn[2::3], axis=1)
    assert (np.maximum(before, after) <= lengths + 1e-9).all()


def test_a_curve_is_smooth_and_a_straight_line_straight():
    points = np.array([[0, 0], [1, 2], [4, 2], [5, 0.5]])
    drawn = curve(points)
    for index in (3, 6):
        before, after = drawn[index] - drawn[index - 1], drawn[index + 1] - drawn[index]
        assert before @ after == pytest.approx(np.linalg.norm(before) * np.linalg.norm(after))
    straight = curve(np.array([[0, 0], [1, 1], [4, 4.0]]))
    np.testing.assert_allclose(straight[:, 0], straight[:, 1])
    assert (np.diff(straight[:, 0]) > 0).all()


def test_a_circle_is_round():
    angles = np.linspace(0, 2 * np.pi, 17)
    on, _ = flatten(curve(np.stack([np.cos(angles), np.sin(angles)], axis=1)), 0.05)
    assert np.abs(np.linalg.norm(on, axis=1) - 1)[20:-20].max() < 0.003


@settings(deadline=None)
@given(strokes(), st.floats(0.05, 2))
def test_points_on_a_curve_are_close_and_hold_its_own(points, spacing):
    drawn = curve(points)
    on, before = flatten(drawn, spacing)
    assert np.linalg.norm(np.diff(on, axis=0), axis=1).max() < 3.01 * spacing
    ends = np.flatnonzero(before == np.floor(before))
    np.testing.assert_allclose(on[ends], drawn[::3], atol=1e-9)
    np.testing.assert_allclose(before[ends], np.arange(len(drawn[::3])))
    assert (np.diff(before) > 0).all()


def winding(polygon, places):
    """How often a closed polygon (m, 2) goes around each of the places (n, 2)."""
    arms = polygon[None] - places[:, None]
    angles = np.arctan2(arms[..., 1], arms[..., 0])
    turns = np.diff(np.concatenate([angles, angles[:, :1]], axis=1), axis=1)
    return np.rint(((turns + np.pi) % (2 * np.pi) - np.pi).sum(axis=1) / (2 * np.pi))


@settings(deadline=None)
@given(strokes(), st.integers(0, 2**32 - 1))
def test_an_outline_covers_the_pen_and_nothing_else(points, seed):
    rng = np.random.default_rng(seed)
    centres, _ = flatten(curve(points), 0.1)
    way = np.linalg.norm(np.diff(centres, axis=0, prepend=centres[:1]), axis=1).cumsum()
    widths = rng.uniform(0.3, 3) * (1 + 0.2 * np.sin(way))
    polygon = outline(centres, widths)
    assert (winding(polygon, centres) > 0).all()
    angles = rng.uniform(0, 2 * np.pi, len(centres))
    within = centres + 0.4 * widths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert (winding(polygon, within) > 0).all()
    distances = np.linalg.norm(polygon[:, None] - centres[None], axis=2).min(axis=1)
    assert distances.max() <= 0.5 * widths.max() + 1e-9


def test_the_outline_of_a_straight_stroke_has_round_ends():
    polygon = outline(np.array([[0, 0], [10.0, 0]]), np.array([2.0, 2.0]))
    x, y = polygon.T
    assert abs(0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))) == pytest.approx(20 + np.pi, rel=0.01)
    np.testing.assert_allclose([polygon.min(axis=0), polygon.max(axis=0)], [[-1, -1], [11, 1]], atol=0.02)
