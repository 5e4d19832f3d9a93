"""The embedded data set: pure in its options, disjoint in its writers, like a tablet's lines in its statistics."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.datasets.hershey import Hershey, _resample, _spline, hand, write, write_letters
from seqdens.datasets.text import ALPHABET, LONGEST, line_of_text
from seqdens.errors import UsageError


def records(**options):
    dataset = Hershey(**options)
    return [record for source in dataset.sources() for record in dataset.read(source)]


def as_bytes(lines):
    return [(line.id, line.text, line.group, line.split, line.points.tobytes()) for line in lines]


@pytest.fixture(scope="module")
def lines():
    return records(lines=200, writers=40)


def test_the_seed_and_the_options_decide_every_byte():
    assert as_bytes(records(lines=12, writers=4)) == as_bytes(records(lines=12, writers=4))
    first, other = records(lines=12, writers=4), records(lines=12, writers=4, seed=1)
    assert not any(np.array_equal(a.points, b.points) for a, b in zip(first, other, strict=True))


def test_neighbouring_lines_share_a_writer_and_differ():
    first, second, *_, last = records(lines=20, writers=5)
    assert first.group == second.group != last.group
    assert not np.array_equal(first.points, second.points)


@settings(deadline=None)
@given(lines=st.integers(3, 2000), writers=st.integers(3, 300))
def test_sources_partition_the_lines(lines, writers):
    sources = Hershey(lines=lines, writers=writers).sources()
    spans = [tuple(map(int, source.name.removeprefix("lines ").split("-"))) for source in sources]
    assert [line for first, last in spans for line in range(first, last + 1)] == list(range(lines))
    assert all(last - first < 100 for first, last in spans)
    assert {source.split for source in sources} == {"train", "valid", "test"}
    assert all(source.paths == () for source in sources)


def test_no_writer_is_in_two_splits(lines):
    writers = {split: {line.group for line in lines if line.split == split} for split in ("train", "valid", "test")}
    assert {split: len(groups) for split, groups in writers.items()} == {"train": 36, "valid": 2, "test": 2}
    assert len(set.union(*writers.values())) == 40


def test_records_carry_the_split_of_their_source_and_unique_names():
    dataset = Hershey(lines=60, writers=6)
    read = [(source, line) for source in dataset.sources() for line in dataset.read(source)]
    assert all(source.split == line.split for source, line in read)
    assert len({line.id for _, line in read}) == 60
    assert read[0][1].id == "w000-l00000"


def test_points_are_whole_strokes_of_integers(lines):
    for line in lines:
        assert line.points.dtype == np.int32
        assert line.points.ndim == 2
        assert line.points.shape[1] == 3
        assert len(line.points) >= 2
        assert set(np.unique(line.points[:, 2])) == {0, 1}
        assert line.points[-1, 2] == 1
        assert np.abs(line.points[:, :2]).max() < 20_000


def test_every_stroke_has_two_points_at_least(lines):
    for line in lines:
        assert np.diff(np.flatnonzero(line.points[:, 2]), prepend=-1).min() >= 2


def test_statistics_are_near_those_of_a_tablet(lines):
    characters = sum(len(line.text) for line in lines)
    points = np.concatenate([line.points for line in lines])
    offsets = np.concatenate([np.diff(line.points[:, :2], axis=0) for line in lines])
    assert 25 <= characters / len(lines) <= 32
    assert 18 <= len(points) / characters <= 25
    assert 20 <= points[:, 2].sum() / len(lines) <= 27
    assert np.all((offsets.std(axis=0) > 28) & (offsets.std(axis=0) < 50))
    assert 5 < offsets[:, 0].mean() < 10
    assert abs(offsets[:, 1].mean()) < 1


def test_the_pen_is_slow_at_the_ends_of_strokes(lines):
    ends, middles = [], []
    for line in lines:
        for stroke in np.split(line.points[:, :2], np.flatnonzero(line.points[:, 2]) + 1):
            if len(stroke) >= 12:
                speeds = np.hypot(*np.diff(stroke, axis=0).T)
                ends += [speeds[0], speeds[-1]]
                middles.append(np.median(speeds))
    assert np.mean(ends) < 0.7 * np.mean(middles)


def test_joining_writers_lift_the_pen_less(lines):
    strokes = {}
    for line in lines:
        strokes.setdefault(line.group, []).append(line.points[:, 2].sum() / len(line.text))
    rates = sorted(np.mean(rate) for rate in strokes.values())
    assert rates[0] < 0.65 < 0.9 < rates[-1]


@pytest.mark.parametrize("writer", range(4))
def test_it_is_known_which_points_draw_which_letter(writer):
    text = "jitter, Bus 7"
    style, glyphs = hand(0, writer)
    points, letter = write_letters(text, style, glyphs, np.random.default_rng(3))
    np.testing.assert_array_equal(points, write(text, style, glyphs, np.random.default_rng(3)))
    assert set(letter) == {index for index, character in enumerate(text) if character != " "}
    middles = [np.median(points[letter == index, 0]) for index in sorted(set(letter))]
    assert middles == sorted(middles)
    strokes = np.split(letter, np.flatnonzero(points[:-1, 2]) + 1)
    assert all((np.diff(stroke) >= 0).all() for stroke in strokes)


def test_a_glyph_is_rounded_but_its_corners_stay():
    angles = np.radians(np.arange(0, 181, 30))
    arc = _spline(np.column_stack([np.cos(angles), np.sin(angles)]))
    between = arc[np.abs(arc[:, 0]) < np.cos(angles[1])]  # its first and last pieces have no neighbour
    assert np.abs(np.hypot(*between.T) - 1).max() < 0.002  # 0.034 for the polyline
    x, y = _spline(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).T
    assert np.all((x == 0) | (y == 1))


def test_resampling_keeps_both_ends_of_every_stroke():
    points = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.2], [9.0, 9.0], [9.0, 9.1]])
    ends = np.array([False, False, True, False, True])
    sampled, sampled_ends = _resample(points, ends, np.array([0, 3, 4.2, 99, 0.1]))
    assert np.flatnonzero(sampled_ends).tolist() == [7, 9]
    np.testing.assert_allclose(sampled[[0, 7, 8, 9]], points[[0, 2, 3, 4]])
    np.testing.assert_allclose(np.abs(np.diff(sampled[:8], axis=0)).sum(axis=1), 7.2 / 7)


def test_text_is_drawable_and_every_character_occurs():
    text = [line_of_text(np.random.default_rng(seed), 32) for seed in range(3000)]
    assert set("".join(text)) == set(ALPHABET)


def test_scrambled_words_make_every_character_frequent():
    rng = np.random.default_rng(0)
    count = Counter("".join(line_of_text(rng, 32, 0.5) for _ in range(1000)))
    assert min(count.values()) > 0.001 * count.total()


@given(seed=st.integers(0, 2**32), characters=st.integers(1, LONGEST))
@settings(deadline=None)
def test_short_lines_of_scrambled_words_are_never_empty(seed, characters):
    text = line_of_text(np.random.default_rng(seed), characters, 0.5)
    assert 0 < len(text) <= characters
    assert text == " ".join(text.split())


def test_lines_are_as_short_and_as_alike_as_asked_for():
    lengths = [len(line.text) for line in records(lines=60, writers=3, shortest=4)]
    assert min(lengths) < 10 < 25 < max(lengths) <= 32
    usual, alike = (records(lines=3, writers=3, variation=variation)[0] for variation in (1.0, 0.0))
    assert usual.text == alike.text
    assert not np.array_equal(usual.points, alike.points)
    assert any(hand(0, writer)[0].joins for writer in range(20))
    assert not any(hand(0, writer, printed=True)[0].joins for writer in range(20))
    assert hand(0, 0, 0.0)[0].tremor == 0 < hand(0, 0)[0].tremor


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), characters=st.integers(LONGEST, 100))
def test_text_keeps_to_its_length_and_capitals_open_sentences(seed, characters):
    text = line_of_text(np.random.default_rng(seed), characters)
    assert 0 < len(text) <= characters
    assert text == " ".join(text.split())
    words = text.split()
    for word, following in pairwise(words):
        assert word[-1] not in ".?!" or not following[0].islower()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": 10**20}, "'lines' of hershey is 100000000000000000000, but must be from 3 to 100000000"),
        ({"lines": 0}, "'lines' of hershey is 0, but must be from 3"),
        ({"writers": 2}, "'writers' of hershey is 2, but must be from 3"),
        ({"characters": 5}, "'characters' of hershey is 5, but must be from 20"),
        ({"seed": -1}, "'seed' of hershey is -1, but must be from 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Hershey(**options)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"generated and takes no data folder"):
        Hershey(tmp_path)


def test_it_says_that_it_is_synthetic():
    assert Hershey.synthetic
