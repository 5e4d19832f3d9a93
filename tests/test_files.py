"""Files appear whole or not at all, and leave nothing beside them."""

import errno
import os
import signal
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest

from seqdens import files
from seqdens.errors import SeqdensError
from seqdens.files import LOCK, PARTIAL, clear_leftovers, hold, replacing


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "new" / "folders" / "file.txt"
    for content in ("first", "second"):
        with replacing(str(path)) as temporary:
            assert temporary.name == "file.txt"
            temporary.write_text(content)
            (temporary.parent / "scratch").write_text("not kept")
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises((ZeroDivisionError, KeyboardInterrupt, SeqdensError)), replacing(path) as temporary:
        fail(temporary)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/new", "file is a file"), ("file/a/new", "Not a directory"), ("folder", "Is a directory")],
)
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(SeqdensError, match=rf"^cannot write '.*{name}': .*{reason}; choose another place\.$"):
        write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def write(path):
    with replacing(path) as temporary:
        temporary.touch()


def test_the_many_lines_of_a_library_are_left_out(tmp_path):
    error = OSError(28, "Can't synchronously write data (file write failed: time = now\n, errno = 28)")
    with pytest.raises(SeqdensError, match=r"file': No space left on device; make room, or choose another place\.$"):  # noqa: SIM117
        with replacing(tmp_path / "file"):
            raise error


@pytest.mark.usefixtures("_heed_interrupts")
@pytest.mark.parametrize("written", ["another", "file"])
def test_an_interrupt_while_it_tidies_up_leaves_nothing(tmp_path, monkeypatch, written):
    rmtree = files.rmtree

    def interrupted(folder, **how):
        signal.raise_signal(signal.SIGINT)
        rmtree(folder, **how)

    monkeypatch.setattr(files, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as temporary:
        (temporary.parent / written).touch()
    assert os.listdir(tmp_path) == (["file"] if written == "file" else [])


def test_a_full_disk_is_named_as_the_reason(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(SeqdensError, match=r"cannot write .*: No space left on device"), replacing(tmp_path / "file"):
        fail()


def test_what_a_killed_process_left_is_deleted_and_what_a_living_one_has_stays(tmp_path):
    path, others = tmp_path / "a[1].h5", [tmp_path / name for name in ("a[1].h5.x", ".a[1].h5.x", f".b.h5.x{PARTIAL}")]
    leftovers = [tmp_path / f".a[1].h5.{name}{PARTIAL}" for name in "xy"]
    for folder in (*leftovers, *others):
        (folder / "deep").mkdir(parents=True)
    (leftovers[0] / LOCK).touch()
    with replacing(path) as first, replacing(path) as second:
        assert {path.parent for path in (first, second)} | set(others) == set(tmp_path.iterdir())
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert set(tmp_path.iterdir()) == {path, *others}


def test_a_folder_that_was_taken_for_a_leftover_is_not_used(tmp_path, monkeypatch):
    def taken(*args):
        folder = mkdtemp(*args)
        monkeypatch.undo()
        clear_leftovers(tmp_path / "file")
        assert not os.listdir(tmp_path)
        return folder

    monkeypatch.setattr(files, "mkdtemp", taken)
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own locks")
def test_without_locks_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    leftover = tmp_path / f".file.x{PARTIAL}"
    leftover.mkdir()
    write(tmp_path / "file")
    assert set(tmp_path.iterdir()) == {tmp_path / "file", leftover}


def test_a_disk_that_is_full_for_the_lock_already_leaves_nothing(tmp_path, monkeypatch):
    def full(path, *how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SeqdensError, match="file': No space left on device"):
        write(tmp_path / "file")
    assert not os.listdir(tmp_path)


def test_a_folder_is_held_once_and_not_by_a_lock_that_was_deleted(tmp_path):
    with hold(tmp_path) as lock:
        assert hold(tmp_path) is None
        assert files.is_at(lock, tmp_path / LOCK)
        (tmp_path / LOCK).unlink()
        assert not files.is_at(lock, tmp_path / LOCK)
        with hold(tmp_path):
            assert not files.is_at(lock, tmp_path / LOCK)
    assert hold(tmp_path / "nowhere") is None


def test_a_lock_that_is_deleted_while_it_is_taken_does_not_count(tmp_path, monkeypatch):
    lock = files._lock

    def deleted(file):
        (tmp_path / LOCK).unlink()
        return lock(file)

    monkeypatch.setattr(files, "_lock", deleted)
    assert hold(tmp_path) is None


def test_a_folder_that_is_held_is_not_made_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with hold(folder):
        write(folder / "file")
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(SeqdensError, match=r"cannot write '.*file': No such file or directory"):
            write(folder / "file")
    assert not folder.exists()
    write(folder / "file")


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_afterwards(tmp_path, monkeypatch):
    done = []

    def flush(descriptor):
        done.append("folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file")
        fsync(descriptor)

    def move(source, target):
        done.append("name")
        replace(source, target)

    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    write(tmp_path / "file")
    assert done == ["file", "name", "folder"]


def test_the_names_of_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
    flushed = []

    def flush(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", flush)
    write(tmp_path / "new" / "newer" / "file")
    assert {tmp_path.stat().st_ino, (tmp_path / "new").stat().st_ino} <= set(flushed)
