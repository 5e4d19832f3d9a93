"""Ink being drawn: the frames of an animated GIF, and how long each is shown."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seqdens import animation
from seqdens.drawing import draw


def wave(steps, phase=0.0):
    """A wavy line of offsets (steps, 3), with a lifted pen after every tenth."""
    rows = np.zeros((steps, 3))
    rows[:, 0] = 8
    rows[:, 1] = 20 * np.sin(0.7 * np.arange(steps) + phase)
    rows[9::10, 2] = 1
    rows[10::10, 0] = 60
    return rows


def frames(path):
    """Of a GIF file the frames (height, width, 3) and the milliseconds that each is shown."""
    shown, durations = [], []
    with Image.open(path, formats=["GIF"]) as image:
        for number in range(image.n_frames):
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")).astype(int))
            durations.append(image.info["duration"])
    return shown, durations


def is_dot(frame):
    """(height, width) bool: pixels that are clearly red."""
    return frame[:, :, 0] - frame[:, :, 1] > 60


def test_the_last_frame_is_the_png(tmp_path):
    records = [wave(60), wave(40, 1.0), np.array([[10, 5, 1], [30, 0, 1]])]
    draw(records, tmp_path / "page.png", title="a title", captions=["first", "second", "third"])
    shown, _ = frames(draw(records, tmp_path / "page.gif", title="a title", captions=["first", "second", "third"]))
    with Image.open(tmp_path / "page.png") as image:
        expected = np.asarray(image.convert("RGB").reduce(2)).astype(int)
    assert shown[-1].shape == expected.shape
    ink = expected.min(axis=2) < 200
    assert np.abs(shown[-1] - expected)[ink].mean() < 25
    assert np.abs(shown[-1] - expected)[~ink].mean() < 0.5
    assert (255 - shown[-1]).sum() == pytest.approx((255 - expected).sum(), rel=0.05)


@pytest.mark.parametrize(("points", "moves"), [(1, 1), (3, 1), (4, 2), (60, 20), (700, 234)])
def test_the_pace_is_fixed_and_the_whole_is_shown_a_while(tmp_path, points, moves):
    shown, durations = frames(draw([wave(points), wave(1)], tmp_path / "page.gif"))
    assert len(shown) == 1 + moves + 1
    assert durations == [40] * (1 + moves) + [2000]
    assert sum(durations[:-1]) <= 10_000


def test_it_repeats_for_ever(tmp_path):
    with Image.open(draw([wave(5)], tmp_path / "page.gif")) as image:
        assert image.info["loop"] == 0


def test_ink_grows_and_dots_show_the_pens_of_records_that_go_on(tmp_path):
    path = draw([wave(30), wave(12)], tmp_path / "page.gif", title="a title")
    shown, _ = frames(path)
    dark = [(frame.max(axis=2) < 100) for frame in shown]
    for before, after in pairwise(dark):
        assert (before & ~after).sum() <= is_dot(shown[0]).sum()  # what a dot may hide
    assert dark[0].sum() < dark[10].sum() < dark[-1].sum()
    dots = [is_dot(frame).sum() for frame in shown]
    assert dots[0] == pytest.approx(dots[4], rel=0.2)
    assert dots[5:11] == pytest.approx([dots[0] / 2] * 6, rel=0.2)
    assert dots[-1] == 0


def test_nothing_is_drawn_where_the_pen_is_lifted(tmp_path):
    record = np.array([[30, 0, 1], [300, 0, 0], [30, 0, 0]])
    shown, _ = frames(draw([record], tmp_path / "page.gif"))
    columns = np.flatnonzero((shown[-1].max(axis=2) < 200).any(axis=0))
    gaps = np.diff(columns)
    assert gaps.max() == pytest.approx(300 / 360 * (columns.max() - columns.min()), rel=0.02)


def test_a_long_record_is_drawn_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MOST_FRAMES", 10)
    shown, durations = frames(draw([wave(95)], tmp_path / "page.gif"))
    assert len(shown) == 1 + 10 + 1
    assert durations[0] == 40


def test_ink_of_no_extent_is_a_dot(tmp_path):
    shown, durations = frames(draw([np.array([[0, 0, 0]])], tmp_path / "page.gif"))
    assert is_dot(shown[0]).any()
    assert 1 <= (shown[-1].max(axis=2) < 250).sum() < 5
    assert durations == [40, 40, 2000]


def test_frames_are_small(tmp_path):
    path = draw([wave(300, phase) for phase in range(4)], tmp_path / "page.gif")
    assert path.stat().st_size < 100 * 1500


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_any_ink_can_be_animated(tmp_path_factory, lengths, seed):
    rng = np.random.default_rng(seed)
    records = [np.column_stack([rng.normal(0, 50, (n, 2)), rng.random(n) < 0.3]) for n in lengths]
    shown, durations = frames(draw(records, tmp_path_factory.mktemp("ink") / "page.gif"))
    assert len(shown) == len(durations) == 2 + -(-max(lengths) // animation.PACE)
    assert not is_dot(shown[-1]).any()
    assert (shown[-1].max(axis=2) < 128).any()
