"""Compiling C++ when it is first wanted: kept, made anew for other sources, refused in a sentence."""

import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from seqdens import native
from seqdens.native import CannotCompile, load

TWICE = 'extern "C" int twice(int x) { return 2 * x; }'


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "kept"))
    native._attempt.cache_clear()
    yield
    native._attempt.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.cpp"
    path.write_text(TWICE)
    return path


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept" / "native").iterdir())


def test_it_is_compiled_once_and_kept(source: Path, tmp_path: Path) -> None:
    try:
        assert load(source).twice(21) == 42
    except CannotCompile as error:
        pytest.skip(str(error))
    (library,) = kept(tmp_path)
    before = library.stat().st_mtime_ns
    native._attempt.cache_clear()
    assert load(source).twice(4) == 8
    assert [path.stat().st_mtime_ns for path in kept(tmp_path)] == [before]
    source.write_text(TWICE.replace("2 *", "3 *").replace("twice", "thrice"))
    native._attempt.cache_clear()
    assert load(source).thrice(4) == 12
    assert len(kept(tmp_path)) == 2


def test_a_header_beside_it_that_has_changed_is_compiled_in(source: Path, tmp_path: Path) -> None:
    header = tmp_path / "factor.h"
    header.write_text("constexpr int factor = 2;")
    source.write_text('#include "factor.h"\nextern "C" int times(int x) { return factor * x; }')
    try:
        assert load(source).times(4) == 8
    except CannotCompile as error:
        pytest.skip(str(error))
    header.write_text("constexpr int factor = 5;")
    native._attempt.cache_clear()
    assert load(source).times(4) == 20


def test_a_damaged_library_is_made_again(source: Path, tmp_path: Path) -> None:
    try:
        load(source)
    except CannotCompile as error:
        pytest.skip(str(error))
    (library,) = kept(tmp_path)
    library.unlink()  # it is mapped: its bytes must stay as they are
    library.write_bytes(b"")
    native._attempt.cache_clear()
    assert load(source).twice(8) == 16


def test_no_compiler_is_one_sentence(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotCompile, match=r"^there is no C\+\+ compiler to compile twice\.cpp; install g\+\+"):
        load(source)


def test_a_compiler_that_is_not_there_is_one_sentence(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CannotCompile, match=r"^twice\.cpp cannot be compiled or loaded: .*no-such-compiler"):
        load(source)


def test_what_does_not_compile_is_told_by_its_first_error(source: Path) -> None:
    source.write_text('extern "C" int twice(int x) { return y; }')
    with pytest.raises(CannotCompile, match=r"does not compile twice\.cpp: .*error.*y|there is no C\+\+ compiler"):
        load(source)


def test_a_failure_is_not_tried_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\necho call >> {calls}\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    for _ in range(3):
        with pytest.raises(CannotCompile, match="compiler"):
            load(source)
    assert calls.read_text().count("call") == 1
    assert not (tmp_path / "kept").exists()


def test_what_others_may_write_to_is_not_run(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    try:
        load(source)
    except CannotCompile as error:
        pytest.skip(str(error))
    (library,) = kept(tmp_path)
    assert (folder.stat().st_mode & 0o777, library.stat().st_mode & 0o777) == (0o700, 0o700)
    library.unlink()
    library.write_bytes(b"planted")
    library.chmod(0o777)
    native._attempt.cache_clear()
    assert load(source).twice(8) == 16
    assert library.read_bytes() != b"planted"
    assert library.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kept" / "native"
    folder.mkdir(parents=True)
    stat = Path.stat
    monkeypatch.setattr(native.os, "geteuid", lambda: 4321)
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result((0o40755, 1, 1, 1, 1234, *stat(path)[5:])))
    with pytest.raises(CannotCompile, match="native belongs to another user, whose code is not run; set XDG_CACHE_HOM"):
        load(source)
    assert kept(tmp_path) == []
