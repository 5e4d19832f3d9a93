"""Texts cut into records of bytes, and samples of them as text."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from seqdens_timeseries import text
from seqdens_timeseries.text import Text, page, samples_drawn, texts_of

import seqdens
from seqdens import Column, DataError, Record, Skipped, UsageError
from seqdens.testing import DatasetContract

HEADER = "record,step,byte category 256"
LINES = "".join(f"Line {number} of a text, naïve and short.\n" for number in range(200))


class TestContract(DatasetContract):
    dataset = seqdens.dataset("text", length=50)
    impossible = (("length", 0), ("files", ""), ("files", "/etc/*"), ("files", "**.txt"), ("files", "../*"))

    def make_files(self, root: Path) -> None:
        (root / "deep").mkdir()
        (root / "a.txt").write_text(LINES)
        (root / "deep" / "b.txt").write_text(LINES[:333])
        (root / "c.txt").touch()
        (root / "no-text.bin").write_bytes(b"\x00")


def records(data: Text) -> list[Record]:
    items = [item for source in data.sources() for item in data.read(source)]
    assert all(isinstance(item, Record) for item in items)
    return [item for item in items if isinstance(item, Record)]


def content(found: list[Record]) -> bytes:
    return b"".join(bytes(record.points[:, 0]) for record in found)


@pytest.mark.parametrize("span", [1, 7, 4096])
def test_records_in_a_row_are_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span: int) -> None:
    monkeypatch.setattr(text, "SPAN", span)
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    data = Text(tmp_path, length=60)
    found = records(data)
    size = len(LINES.encode())
    assert content(found) == LINES.encode()
    assert {len(record.points) for record in found[:-1]} == {60}
    assert [record.id for record in found] == [f"a.txt:{at}" for at in range(0, size, 60)]
    assert len(data.sources()) == -(-size // (60 * span))
    assert data.columns == (Column("byte", "category", 256),)


def test_splits_do_not_depend_on_how_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(LINES * 10)
    expected = [(record.id, record.split) for record in records(Text(tmp_path, length=20))]
    monkeypatch.setattr(text, "SPAN", 5)
    assert [(record.id, record.split) for record in records(Text(tmp_path, length=20))] == expected
    counts = Counter(split for _, split in expected)
    assert counts["train"] == pytest.approx(0.8 * len(expected), rel=0.05)
    assert counts["valid"] == pytest.approx(counts["test"], rel=0.2)


def test_root_can_be_one_file_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello")
    (found,) = records(Text(tmp_path / "README"))
    assert (found.id, found.group, content([found])) == ("README:0", "README", b"hello")


def test_files_are_those_of_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    assert content(records(Text(tmp_path, files="*.py"))) == b"one"
    with pytest.raises(DataError, match=r"has no file '\*\.rst' with text in it"):
        Text(tmp_path, files="*.rst").sources()


def test_a_nul_byte_costs_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"aaaabb\0bcc")
    data = Text(tmp_path, length=4)
    items = [item for source in data.sources() for item in data.read(source)]
    assert items[1] == Skipped(f"{tmp_path / 'a.txt'}:4", "holds a NUL byte, which no text does")
    assert content([item for item in items if isinstance(item, Record)]) == b"aaaacc"


def test_it_needs_a_folder() -> None:
    with pytest.raises(UsageError, match="text needs --data DIR"):
        Text()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt does not exist\."):
        Text(tmp_path / "none.txt").sources()


def test_samples_are_written_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(0, "hé"), (1, "a\nb"), (2, "")]
    lines = [
        f"{record},{step},{byte}" for record, said in rows for step, byte in enumerate(said.encode() or b"\xff", 1)
    ]
    (tmp_path / "samples.csv").write_text("\n".join(["record,step,byte category 256", *lines, ""]))
    assert texts_of(tmp_path / "samples.csv") == ["hé", "a\nb", "\ufffd"]
    run = SimpleNamespace(config={"dataset": {"name": "text"}})
    samples_drawn(run, [tmp_path / "samples.csv"])
    expected = "----- sample 1 -----\nhé\n----- sample 2 -----\na\nb\n----- sample 3 -----\n\ufffd\n"
    assert (tmp_path / "samples.txt").read_text(encoding="utf-8") == expected
    assert capsys.readouterr().out == f"Samples as text: {tmp_path / 'samples.txt'}\n"


def test_samples_of_other_data_are_left_alone(tmp_path: Path) -> None:
    run = SimpleNamespace(config={"dataset": {"name": "table"}})
    samples_drawn(run, [tmp_path / "samples.csv"])
    assert not list(tmp_path.iterdir())


def test_the_command_prints_samples(tmp_path: Path) -> None:
    (tmp_path / "drawn.csv").write_text("record,step,byte category 256\n0,1,72\n0,2,105\n1,1,33\n")
    command = [sys.executable, "-m", "seqdens_timeseries.text", str(tmp_path / "drawn.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == page(["Hi", "!"])


@pytest.mark.parametrize("content", ["", "a\n", f"{HEADER}\n0,1\n", f"{HEADER}\n0,1,256\n", f"{HEADER}\n0,1,\xe4\n"])
def test_the_command_says_what_a_file_is_not(tmp_path: Path, content: str) -> None:
    (tmp_path / "drawn.csv").write_bytes(content.encode("latin-1"))
    done = CliRunner().invoke(text.main, [str(tmp_path / "drawn.csv")])
    assert (done.exit_code, done.stdout) == (1, "")
    expected = "drawn.csv is no CSV file of samples of text, as `seqdens sample --out` writes it.\n"
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(expected)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument 'FILE'"),
        (["none.csv"], 2, "'none.csv' does not exist"),
        (["--help"], 0, "Print the samples of text in FILE"),
    ],
)
def test_the_command_says_how_it_is_used(arguments: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(text.main, arguments)
    assert done.exit_code == code
    assert "Usage: " in done.output
    assert said in done.output
