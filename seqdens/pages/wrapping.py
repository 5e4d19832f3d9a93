"""Text to lines."""

from __future__ import annotations

import textwrap
from itertools import pairwise

from seqdens.errors import UsageError


def wrap(text: str, characters: int) -> list[str]:
    """`text` as lines of at most so many characters; what a line break ends stays a line, blank lines become one "".

    White space becomes single spaces and a word is broken only if it is longer than a line; nothing else is
    changed. Empty for a text of white space alone. Raises `UsageError` for fewer than one character.

    >>> wrap("Dear Anna,\\n\\nthank you for everything.", 14)
    ['Dear Anna,', '', 'thank you for', 'everything.']
    """
    if characters < 1:
        raise UsageError(f"a line of {characters} characters holds nothing: it must have at least 1.")
    lines = [line for row in text.strip().splitlines() for line in _filled(row, characters) or [""]]
    return [line for before, line in pairwise(["", *lines]) if line or before]


def _filled(row: str, characters: int) -> list[str]:
    lines = textwrap.wrap(" ".join(row.split()), characters, break_on_hyphens=True)
    return [line.rstrip() for line in lines]  # before a word that is longer than a line, textwrap leaves the space
