"""The baseline and the size of written lines, against the simulated writers' own."""

import numpy as np
import pytest

from seqdens.datasets.hershey import hand, write
from seqdens.pages.baseline import measure

TEXT = "The quiet garden by the sea, again"


def written(writer, text=TEXT, seed=0):
    """The writer's style, and the strokes of a line."""
    style, glyphs = hand(7, writer)
    points = write(text, style, glyphs, np.random.default_rng(seed)).astype(float)
    return style, np.split(points[:, :2], np.flatnonzero(points[:-1, 2]) + 1)


@pytest.mark.parametrize("writer", range(12))
def test_letters_have_the_writers_size(writer):
    style, strokes = written(writer)
    body = measure(strokes)
    assert body.height == pytest.approx(style.size, rel=0.25)
    assert abs(body.slope) < 0.02


@pytest.mark.parametrize("angle", [-0.15, 0.06, 0.2])
@pytest.mark.parametrize("writer", range(4))
def test_a_slope_is_found(writer, angle):
    _, strokes = written(writer)
    level = measure(strokes)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    body = measure([stroke @ turn for stroke in strokes])
    assert np.arctan(body.slope) - np.arctan(level.slope) == pytest.approx(angle, abs=0.02)
    assert body.height == pytest.approx(level.height, rel=0.15)


def test_it_moves_and_grows_with_the_ink():
    _, strokes = written(1)
    slope, y, height = measure(strokes)
    moved = measure([3 * stroke + (50, -700) for stroke in strokes])
    assert moved.slope == pytest.approx(slope)
    assert moved.height == pytest.approx(3 * height)
    assert moved.y == pytest.approx(3 * y - 700 - 50 * slope)


def test_descenders_and_dots_do_not_pull_it():
    _, plain = written(5, "one summer sun")
    body = measure(plain)
    x = np.linspace(plain[0][0, 0], plain[-1][-1, 0], 5)
    tails = [np.array([[at, body.y], [at, body.y + 2 * body.height]]) for at in x]
    dots = [np.array([[at, body.y - 3 * body.height]]) for at in x]
    assert measure(plain + tails + dots).y == pytest.approx(body.y, abs=0.15 * body.height)


@pytest.mark.parametrize(
    "strokes", [[[[5, 7]]], [[[0, 7], [9, 7]]], [[[5, 7]], [[90, 7], [90, 7]]]], ids=["dot", "dash", "dots"]
)
def test_ink_without_height_has_a_baseline_alone(strokes):
    assert measure([np.array(stroke, float) for stroke in strokes]) == (0, 7, 0)
