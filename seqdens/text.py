"""Texts as indices into an alphabet, and what becomes of characters that are not in it.

B texts, U characters of the longest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from seqdens.errors import UsageError

Unknown = Literal["error", "skip", "replace"]

ALIKE = str.maketrans("‘’‚‛`´“”„«»‐‑‒–—―−", "''''''\"\"\"\"\"-------")


def encode(texts: Sequence[str], alphabet: str) -> tuple[np.ndarray, np.ndarray]:
    """Character indices (B, U), zeros in the padding, and lengths (B,).

    Raises `UsageError` that lists the characters that are not in the alphabet.
    """
    index = {character: i for i, character in enumerate(alphabet)}
    if unknown := sorted(set().union(*texts) - index.keys()):
        raise UsageError(
            f"{_listed(unknown)} cannot be written, the alphabet is {alphabet!r}; "
            "leave such characters out, or have them skipped or replaced (option unknown: skip, replace)."
        )
    lengths = np.array([len(text) for text in texts], np.int64)
    ids = np.zeros((len(texts), int(lengths.max(initial=0))), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = [index[character] for character in text]
    return ids, lengths


def writable(text: str, alphabet: str, unknown: Unknown = "error") -> str:
    """`text` in characters of `alphabet`: unknown ones left out by "skip", by "replace" exchanged for a stand-in.

    Stand-ins are, the first that is possible: the same without accents and ligatures, the plain quotation mark or dash,
    the other case of these, a space, nothing. By "error" the text stays as it is. Raises `UsageError` where nothing is
    left, and for another policy.

    >>> writable("Ça va, “Zoë”…", "abcdefghijklmnopqrstuvwxyz ,.'", "replace")
    "ca va, 'zoe'..."
    """
    if unknown not in get_args(Unknown):
        raise UsageError(f"unknown is {unknown!r}, but must be one of {', '.join(get_args(Unknown))}.")
    known = set(alphabet)
    if unknown != "error":
        replaced = unknown == "replace"
        text = "".join(each if each in known else stand_in(each, alphabet) if replaced else "" for each in text)
    if not text:
        raise UsageError("there is no text to write; give at least one character of the alphabet.")
    return text


def continued(text: str, alphabet: str) -> str:
    """`text` and the space before what is written after it, where the alphabet has one."""
    return text + " " * (" " in alphabet)


def steps_for(text: str) -> int:
    """The points that a text is given where nobody says, about three times those that handwriting needs."""
    return 100 + 60 * len(text)


def stand_in(character: str, alphabet: str) -> str:
    """What is written for a character that is not in the alphabet, as in `writable`; empty where there is nothing."""
    decomposed = unicodedata.normalize("NFKD", character)
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    alike = plain.translate(ALIKE)
    for instead in (plain, alike, alike.swapcase(), alike.replace('"', "'"), " "):
        if instead and all(each in alphabet for each in instead):
            return instead
    return ""


def _listed(characters: Sequence[str]) -> str:
    return ("character " if len(characters) == 1 else "characters ") + " ".join(map(repr, characters))
