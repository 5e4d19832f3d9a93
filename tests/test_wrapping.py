"""Text to lines: nothing but white space is lost, no line is too long."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdens.errors import UsageError
from seqdens.pages.wrapping import wrap

TEXTS = st.text(st.one_of(st.sampled_from("ab-, \t\n\r\x0b\xa0\u2028é"), st.characters()), max_size=200)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 40))
def test_all_but_white_space_is_kept_in_order_in_lines_short_enough(text, characters):
    lines = wrap(text, characters)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= characters for line in lines)
    assert all(line == " ".join(line.split()) for line in lines)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 40))
def test_gaps_are_single_and_inside(text, characters):
    lines = wrap(text, characters)
    assert all(lines[:1] + lines[-1:])
    assert all(before or after for before, after in pairwise(lines))


@settings(deadline=None)
@given(st.lists(st.text("abc,", min_size=1, max_size=10), min_size=1), st.integers(10, 40))
def test_words_that_fit_are_not_broken_and_lines_are_filled(words, characters):
    lines = wrap(" ".join(words), characters)
    assert " ".join(lines).split() == words
    for line, after in pairwise(lines):
        assert len(line) + 1 + len(after.split()[0]) > characters


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("one\ntwo", ["one", "two"]),
        ("one\n \n\t\n\ntwo\n", ["one", "", "two"]),
        ("\n\n  a \t b", ["a b"]),
        ("extraordinary", ["extraord", "inary"]),
        ("sevenxx extraordinary", ["sevenxx", "extraord", "inary"]),
        ("well-known", ["well-", "known"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_what_becomes_of(text, lines):
    assert wrap(text, 8) == lines


@pytest.mark.parametrize("characters", [0, -3])
def test_a_line_without_characters_is_refused(characters):
    with pytest.raises(UsageError, match=f"{characters} characters"):
        wrap("a", characters)
