"""Points to offsets and back: exact for integers, first point dropped, other columns as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from seqdens.datasets.base import STROKE_END, Column, X, Y
from seqdens.offsets import to_offsets, to_points

PRESSURE = Column("pressure", "real")
COLUMNS = (X, PRESSURE, Y, STROKE_END)


def test_differenced_columns_become_changes_and_others_stay():
    points = np.array([[10, 7, 1, 0], [12, 8, 1, 1], [5, 9, 4, 1]])
    np.testing.assert_array_equal(to_offsets(points, COLUMNS), [[2, 8, 0, 1], [-7, 9, 3, 1]])
    np.testing.assert_array_equal(points[0], [10, 7, 1, 0])


@settings(deadline=None)
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2).map(lambda shape: (shape[0], 4))))
def test_points_come_back_relative_to_the_first(points):
    back = to_points(to_offsets(points, COLUMNS), COLUMNS)
    np.testing.assert_array_equal(back[:, [0, 2]], points[:, [0, 2]].astype(float) - points[0, [0, 2]])
    np.testing.assert_array_equal(back[1:, [1, 3]], points[1:, [1, 3]])
    np.testing.assert_array_equal(back[0], 0)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint8, np.uint32])
def test_no_difference_of_integers_overflows(dtype):
    low, high = max(np.iinfo(dtype).min, -(2**61)), min(np.iinfo(dtype).max, 2**61)
    offsets = to_offsets(np.array([[low], [high], [low]], dtype), [X])
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [[high - low], [low - high]]


def test_differences_of_large_numbers_are_taken_before_rounding():
    times = np.array([[2**60], [2**60 + 1], [2**60 + 3]])
    assert to_offsets(times, [X]).tolist() == [[1], [2]]
    assert to_offsets(np.float32([[2**24], [2**24 + 2]]), [X]).dtype == np.float64


def test_without_differences_no_point_is_dropped():
    points = np.array([[1.5, 0], [np.nan, 1]])
    for convert in (to_offsets, to_points):
        np.testing.assert_array_equal(convert(points, (PRESSURE, STROKE_END)), points)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_points_make_no_offsets(count):
    assert to_offsets(np.ones((count, 4)), COLUMNS).shape == (0, 4)
    assert to_points(np.ones((0, 4)), COLUMNS).tolist() == [[0, 0, 0, 0]]


def test_a_missing_value_makes_the_changes_on_both_sides_missing():
    points = np.array([[0.0, 0], [np.nan, 0], [3, 1], [4, 0]])
    np.testing.assert_array_equal(to_offsets(points, (X, STROKE_END)), [[np.nan, 0], [np.nan, 1], [1, 0]])
