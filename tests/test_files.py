"""Files appear whole or not at all, and leave nothing beside them."""

import os
import signal
from tempfile import TemporaryDirectory

import pytest

from seqdens.errors import SeqdensError
from seqdens.files import replacing


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
    with pytest.raises(SeqdensError, match=r"file': No space left on device; choose another place\.$"):  # noqa: SIM117
        with replacing(tmp_path / "file"):
            raise error


@pytest.mark.usefixtures("_heed_interrupts")
@pytest.mark.parametrize("written", ["another", "file"])
def test_an_interrupt_while_it_tidies_up_leaves_nothing(tmp_path, monkeypatch, written):
    cleanup = TemporaryDirectory.cleanup

    def interrupted(folder):
        signal.raise_signal(signal.SIGINT)
        cleanup(folder)

    monkeypatch.setattr(TemporaryDirectory, "cleanup", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as temporary:
        (temporary.parent / written).touch()
    assert os.listdir(tmp_path) == (["file"] if written == "file" else [])


def test_a_full_disk_is_named_as_the_reason(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(SeqdensError, match=r"cannot write .*: No space left on device"), replacing(tmp_path / "file"):
        fail()
