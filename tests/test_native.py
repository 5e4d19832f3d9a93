"""The compiled library: which levels there are and which is used, and what is said if there is none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seqdens import native
from seqdens.errors import SeqdensError
from seqdens.native import LEVELS, PRODUCTS, Unavailable


@pytest.fixture(autouse=True)
def _found_out_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    native.forget()
    yield
    native.forget()


def test_every_level_is_for_some_products_and_the_other_way_round() -> None:
    assert {level for levels in PRODUCTS.values() for level in levels} == set(LEVELS)
    for levels in PRODUCTS.values():
        assert [*levels] == sorted(levels, key=LEVELS.index, reverse=True) or "neon" in "".join(levels)


@pytest.mark.usefixtures("level")
def test_a_level_that_is_held_to_is_used() -> None:
    assert native.level("float32") in native.describe()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("limit", LEVELS)
@pytest.mark.parametrize("products", PRODUCTS)
def test_no_level_beyond_the_limit_is_used(products: str, limit: str, hold: Callable[[str], None]) -> None:
    here = [*native.levels(products)]
    hold(limit)
    allowed = [level for level in here if LEVELS.index(level) <= LEVELS.index(limit)]
    if allowed:
        assert [*native.levels(products)] == allowed
        return
    with pytest.raises(Unavailable, match=f"for products in {products}"):
        native.levels(products)


def test_a_limit_that_is_no_level_is_one_sentence(hold: Callable[[str], None]) -> None:
    hold("avx3")
    with pytest.raises(SeqdensError, match=r"^SEQDENS_LEVEL is 'avx3', but must be one of generic, neon, .*, or empty"):
        native.level("float32")


@pytest.mark.usefixtures("library")
def test_an_empty_limit_is_none(hold: Callable[[str], None]) -> None:
    wanted = native.level("float32")
    hold("")
    assert native.level("float32") == wanted


def test_without_a_library_the_reason_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "__path__", [str(tmp_path)])
    with pytest.raises(
        Unavailable, match=r"without its compiled part; install a C\+\+ compiler \(g\+\+\), then seqdens"
    ):
        native.level("float32")
    assert native.describe().startswith("plain torch: seqdens was installed without")


def test_a_damaged_library_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libseqdens.so").write_bytes(b"none")
    monkeypatch.setattr(native, "__path__", [str(tmp_path)])
    with pytest.raises(Unavailable, match=r"libseqdens\.so cannot be loaded \(.*\); install seqdens again"):
        native.level("float32")


@pytest.mark.usefixtures("library")
def test_without_openmp_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(native.ctypes, "CDLL", refuse)
    native.forget()
    with pytest.raises(Unavailable, match="there is no OpenMP runtime beside torch or on this system"):
        native.library()
