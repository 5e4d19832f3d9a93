"""Pseudo-English for generated data: words from an embedded list, with capitals, punctuation and digits."""

from __future__ import annotations

import string

import numpy as np

ALPHABET = string.ascii_letters + string.digits + " .,?!'-"

_WORDS = """
the of and to a in that it is was I for on you he be with as by at have are this not but had his they from she
which or we an there her were one do been all their has would will what if can when so no out up more about
who them some into could time only then its two like my than first over now your other such people our may
down made many these me before should new must great where way years work through much back him even long go
after any good own most men just here day three little old see how make thing right come state know too very
house hand city under last never take same another came while think place again without found home every part
small went once left few got world might school away still look night water number always something eyes head
put less young far took since against himself asked call enough end face upon room give done both given really
why off find ever better between name nothing best early light until side being word kind four six seven eight
nine ten second book quite question quick quiet mixed next box zero size dozen lazy prize job join major
object jump enjoy expect exact example extra fox tax queen equal require keep king week walk ask speak black
thank milk visit voice river village above love move live value gave five heavy green morning evening garden
going strong along song bring father mother brother friend child girl boy woman family window door table
street road train ship sea sun moon star rain snow wind summer winter spring tree flower bird horse dog cat
fish bread butter apple tea coffee sugar money paper pencil letter story music dance colour red blue white
brown yellow open close begin learn teach write read count paint build carry hold drive fly swim sleep dream
wake laugh smile happy glad brave clever simple plain sharp smooth soft hard warm cold dry wet high low deep
wide narrow short tall full empty clean fresh sweet half whole public common often perhaps maybe almost
usually don't it's I'm can't that's isn't we'll they're Anna Ben Clara David Emma Frank George Helen Ivan Jack
Kate Lucy Mary Nora Oscar Peter Quentin Rose Sam Tom Ursula Victor William Xavier Yorkshire Zoe London Paris
Vienna Oxford Quebec Zurich Kenya Japan Monday Friday
"""
WORDS = _WORDS.split()  # the commonest first
LONGEST = 2 * max(map(len, WORDS)) + 2  # a compound and its punctuation mark

_POOLS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, ALPHABET.replace(" ", ""))
_POOL_SHARES = np.cumsum((0.45, 0.2, 0.15, 0.2))

_MARKS = (".", ".", ".", ".", ",", ",", ",", "?", "!")
_WEIGHTS = 1 / (np.arange(len(WORDS)) + 40)  # Zipf's law, flattened so that rare letters occur
_CUMULATIVE = np.cumsum(_WEIGHTS) / _WEIGHTS.sum()


def line_of_text(rng: np.random.Generator, characters: int, scrambled: float = 0.0) -> str:
    """Words up to `characters`, at least `LONGEST` if none are scrambled, of `ALPHABET`; may begin within a sentence.

    A share `scrambled` of them are characters at random: all are frequent there, and none tells which comes next.
    """
    line = ""
    opening = rng.random() < 0.5
    while True:
        token = _scrambled(rng) if scrambled and rng.random() < scrambled else _token(rng)
        token = token[0].upper() + token[1:] if opening else token
        mark = _mark(rng)
        longer = f"{line} {token}{mark}".strip()
        if len(longer) > characters:
            if line:
                return line
            continue
        line = longer
        opening = mark in (".", "?", "!")


def _token(rng: np.random.Generator) -> str:
    """A word, a compound of two, or a number of up to four digits."""
    chance = rng.random()
    if chance < 0.05:
        return str(rng.integers(10 ** rng.integers(1, 5)))
    return f"{_word(rng)}-{_word(rng)}" if chance < 0.07 else _word(rng)


def _scrambled(rng: np.random.Generator) -> str:
    """Up to seven characters at random: small letters, capitals, digits or all that there are."""
    pool = _POOLS[int(np.searchsorted(_POOL_SHARES, rng.random()))]
    return "".join(rng.choice([*pool], rng.integers(1, 8)))


def _word(rng: np.random.Generator) -> str:
    return WORDS[int(np.searchsorted(_CUMULATIVE, rng.random()))]


def _mark(rng: np.random.Generator) -> str:
    """What follows a word: mostly nothing."""
    return _MARKS[rng.integers(len(_MARKS))] if rng.random() < 0.2 else ""
