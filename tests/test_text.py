"""Texts as indices, and what becomes of unknown characters."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqdens.errors import UsageError
from seqdens.text import encode, writable

ENGLISH = string.ascii_letters + " .,'-"


def test_characters_become_their_places_in_the_alphabet() -> None:
    ids, lengths = encode(["ba", "", "cab"], "abc")
    np.testing.assert_array_equal(ids, [[1, 0, 0], [0, 0, 0], [2, 0, 1]])
    np.testing.assert_array_equal(lengths, [2, 0, 3])


def test_unknown_characters_are_listed_with_the_alphabet() -> None:
    with pytest.raises(UsageError, match="characters 'x' 'é' cannot be written, the alphabet is 'abc'; leave such"):
        encode(["aéx", "x"], "abc")
    with pytest.raises(UsageError, match="character '\\\\n' cannot"):
        encode(["\n"], "abc")


def test_known_texts_stay_as_they_are() -> None:
    for unknown in ("error", "skip", "replace"):
        assert writable("Don't go.", ENGLISH, unknown) == "Don't go."
    assert writable("Straße", ENGLISH) == "Straße"


@pytest.mark.parametrize(
    ("text", "alphabet", "skipped", "replaced"),
    [
        ("naïve Ångström", ENGLISH, "nave ngstrm", "naive Angstrom"),
        ("“no” – ‘yes’…", ENGLISH, "no  yes", "'no' - 'yes'..."),
        ("Hello", "ehlo", "ello", "hello"),
        ("ÉÉ!", "e ", "", "ee "),
        ("a\nb\tc", ENGLISH, "abc", "a b c"),
        ("ﬁn", ENGLISH, "n", "fin"),
        ("a!b", "ab", "ab", "ab"),
        ("é", "é", "é", "é"),
    ],
)
def test_policies(text: str, alphabet: str, skipped: str, replaced: str) -> None:
    assert writable(text, alphabet, "replace") == replaced
    if skipped:
        assert writable(text, alphabet, "skip") == skipped


@given(st.text(), st.text(min_size=1), st.sampled_from(["skip", "replace"]))
def test_what_is_left_can_be_written(text: str, alphabet: str, unknown: str) -> None:
    if set(text) & set(alphabet):
        written = writable(text, alphabet, unknown)
        assert written
        assert set(written) <= set(alphabet)
    elif unknown == "skip":
        with pytest.raises(UsageError, match="there is no text to write"):
            writable(text, alphabet, unknown)


@pytest.mark.parametrize(("text", "unknown"), [("", "error"), ("", "replace"), ("!?", "skip")])
def test_nothing_to_write_is_refused(text: str, unknown: str) -> None:
    with pytest.raises(UsageError, match="there is no text to write; give at least one character"):
        writable(text, "abc", unknown)


def test_another_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown is 'drop', but must be one of error, skip, replace"):
        writable("a", "abc", "drop")
