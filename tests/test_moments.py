"""Sums without rounding: equal to fractions added up, whatever the parts and their order."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqdens.moments import Moments, exact_sum, exact_sums

numbers = st.floats(-3e38, 3e38).filter(lambda x: x == 0 or abs(x) > 1e-46)
values = arrays(np.float64, st.integers(0, 40), elements=numbers | st.integers(-300, 300).map(float))
rows = st.integers(0, 30).flatmap(
    lambda n: arrays(np.float64, (n, 2), elements=st.just(np.nan) | st.floats(-1e9, 1e9) | st.integers(-99, 99))
)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_a_sum_is_that_of_fractions(drawn):
    assert exact_sum(drawn) == sum(map(Fraction, drawn.tolist()))


@settings(deadline=None)
@given(values)
def test_sums_and_squares_are_exact(drawn):
    fractions = [Fraction(value) for value in drawn.tolist()]
    assert exact_sums(drawn) == (sum(fractions), sum(value * value for value in fractions))


@pytest.mark.parametrize("top", [1, 2**15, 2**24, 2**26 - 1, 2**40])
def test_whole_numbers_of_any_size_are_exact(top):
    drawn = np.random.default_rng(0).integers(-top, top, 1000, endpoint=True)
    squares = sum(int(value) ** 2 for value in drawn)
    assert exact_sums(drawn.astype(float)) == (int(drawn.sum()), squares)


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=5), st.randoms())
def test_parts_in_any_order_add_up_to_the_whole(parts, random):
    whole = Moments.of(np.concatenate(parts))
    random.shuffle(parts)
    total = Moments.of(np.empty((0, 2)))
    for part in parts:
        total = total.merged(Moments.from_json(Moments.of(part).to_json()))
    assert total == whole
    assert (total.mean().tolist(), total.std().tolist()) == (whole.mean().tolist(), whole.std().tolist())


def test_mean_and_standard_deviation_are_those_of_exact_arithmetic():
    drawn = np.random.default_rng(0).normal(1e8, 1, (3000, 1))
    fractions = [Fraction(value) for value in drawn[:, 0].tolist()]
    mean = sum(fractions) / 3000
    variance = sum((value - mean) ** 2 for value in fractions) / 3000
    moments = Moments.of(drawn)
    assert moments.mean().tolist() == [float(mean)]
    assert moments.std().tolist() == [math.sqrt(variance)]


def test_what_is_zero_when_stored_counts_as_zero():
    assert Moments.of(np.array([[1e-60], [-5e-324], [1.0]])) == Moments.of(np.array([[0.0], [0.0], [1.0]]))
    assert np.float32(2.0**-150) == 0


def test_without_values_and_for_constants_nothing_is_scaled():
    moments = Moments.of(np.array([[np.nan, 0.1], [np.nan, 0.1]]))
    assert moments.mean().tolist() == [0, 0.1]
    assert moments.std().tolist() == [1, 1]
    assert Moments.of(np.empty((3, 0))).mean().shape == (0,)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "[1]", "[[1], [[1, 0]], [[1, 1]]]", '[[1], ["1e999999999"], [[1, 1]]]', "[[1], [[1, 1]], []]"),
        *("[[-1], [[0, 1]], [[0, 1]]]", "[[0], [[1, 1]], [[1, 1]]]", "[[2], [[3, 1]], [[4, 1]]]"),
        *("[[1], [[1, 1]], [[1" + "0" * 5000 + ", 1]]]", f"[[1], [[{10**39}, 1]], [[{10**78}, 1]]]"),
    ],
)
def test_what_is_no_moments_is_refused_at_once(text):
    with pytest.raises((ValueError, ZeroDivisionError)):
        Moments.from_json(text)


def test_the_text_is_json_of_whole_numbers():
    large = Moments.of(np.array([[1e38], [1e-45]]))
    assert Moments.from_json(large.to_json()) == large
    assert json.loads(Moments.of(np.array([[0.5], [2.0]])).to_json()) == [[2], [[5, 2]], [[17, 4]]]
