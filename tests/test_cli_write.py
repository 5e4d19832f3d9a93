"""`seqdens write`: texts to pages in every format, and what is said where there can be none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from seqdens import writing
from seqdens.cli import cli
from seqdens.model import SequenceModel
from seqdens.pages.files import SUFFIXES, load_sheets
from seqdens.styles import Style, add_style

STYLE = Style(np.array([[30, 0, 0], [0.1, 40, 1], [25, -40, 0], [7, 40, 1]]), "ad")


def write(*args: Any, **given: Any) -> Result:
    return CliRunner().invoke(cli, ["write", *map(str, args)], prog_name="seqdens", **given)


@pytest.fixture(autouse=True)
def _written_model(writer: SequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained writer of " abcd" in the present folder, and no styles."""
    folder = tmp_path / "here"
    monkeypatch.setenv("SEQDENS_STYLES", str(folder / "styles"))
    folder.mkdir()
    monkeypatch.chdir(folder)
    writer.save("model.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_written(suffix: str) -> None:
    out = Path(f"new/page{suffix}")
    done = write("bad cab", "--model", "model.safetensors", "--seed", 1, "--tries", 1, "--out", out)
    assert done.exit_code == 0, done.output
    assert out.stat().st_size > 0
    assert done.stdout.startswith(f"{out}: lines 1, points "), done.output
    assert "seed 1" in done.stdout


def test_a_page_holds_the_lines_of_the_library() -> None:
    arguments = ("--seed", 3, "--tries", 2, "--bias", 0.5, "--characters", 3, "--paper", "A5", "--align", "right")
    done = write("bad cab\n\ndab", "--model", "model.safetensors", *arguments, "--out", "page.json")
    assert done.exit_code == 0, done.output
    (sheet,) = load_sheets("page.json")
    model = SequenceModel.load("model.safetensors")
    expected = writing.write("bad cab\n\ndab", model, seed=3, tries=2, bias=0.5, characters=3)
    assert (sheet.width, [line.text for line in sheet.lines]) == (148, ["bad", "cab", "dab"])
    inked = [line for line in expected.lines if line.text]
    for line, wanted in zip(sheet.lines, inked, strict=True):
        assert sum(map(len, line.strokes)) == len(wanted.points) + 1
    assert f"lines 3, points {sum(len(line.points) for line in inked)}, seed 3" in done.stdout


def test_several_pages_are_several_files() -> None:
    options = ("--paper", "60x40", "--margin", 5, "--characters", 3, "--seed", 1, "--tries", 1)
    done = write("bad " * 9, "--model", "model.safetensors", *options, "--out", "p.gcode")
    assert done.exit_code == 0, done.output
    pages = sorted(str(path) for path in Path().glob("p-*.gcode"))
    assert len(pages) > 1
    assert done.stdout.startswith(f"p-1.gcode to {pages[-1]}: lines 9")


def test_a_text_is_read_from_a_file_and_from_standard_input() -> None:
    Path("text.txt").write_bytes("\ufeffbad\r\ncab".encode())
    options = ("--model", "model.safetensors", "--seed", 1, "--tries", 1, "--out", "page.npz")
    for given in ({"args": ("--from", "text.txt")}, {"args": ("-",)}, {"args": ("--from", "-")}):
        done = write(*given["args"], *options, input="bad\ncab")
        assert done.exit_code == 0, done.output
        assert [line.text for line in load_sheets("page.npz")[0].lines] == ["bad", "cab"]


def test_pen_and_plotter_are_set() -> None:
    options = ("--model", "model.safetensors", "--seed", 1, "--tries", 1)
    assert write("bad", *options, "--colour", "red", "--pen-width", 0.7, "--out", "page.svg").exit_code == 0
    assert "#ff0000" in Path("page.svg").read_text()
    assert "0.7" in Path("page.svg").read_text()
    assert write("bad", *options, "--lift", "servo", "--press", 90, "--feed", 700, "--out", "page.nc").exit_code == 0
    assert {"M3 S90", "M5"} <= set(Path("page.nc").read_text().splitlines())
    assert "F700" in Path("page.nc").read_text()


def test_a_hand_is_a_saved_style_or_a_file() -> None:
    add_style("anna", STYLE)
    STYLE.save("other.style")
    options = ("--model", "model.safetensors", "--seed", 1, "--tries", 1, "--out", "page.json")
    drawn = []
    for style in ([], ["--style", "anna"], ["--style", "other.style"], ["--style", "anna", "--style-text", "dad"]):
        done = write("bad", *options, *style)
        assert done.exit_code == 0, done.output
        drawn.append(Path("page.json").read_bytes())
    assert drawn[1] == drawn[2]
    assert len(set(drawn)) == 3
    refused = write("bad", *options, "--style", "anna", "--style-text", "Anna")
    assert (refused.exit_code, "has 'A' 'n', which the model has not learnt" in refused.stderr) == (2, True)


def test_lines_that_stay_bad_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LEAST", 1000.0)
    done = write("bad", "--model", "model.safetensors", "--tries", 2, "--seed", 1)
    assert done.exit_code == 0
    assert done.stderr == "Warning: line 1 skipped 'bad' in 2 tries: 'bad'\n"
    assert done.stdout.endswith("seed 1, bad lines 1\n")


def test_weights_of_the_package_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHIPPED", Path("model.safetensors"))
    assert write("bad", "--seed", 1, "--tries", 1).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "give a text, or --from FILE"),
        (["bad", "--from", "text.txt"], 2, "one of the two"),
        (["--from", "none.txt"], 1, "cannot read 'none.txt': No such file"),
        (["--from", "latin.txt"], 1, "latin.txt is no text in UTF-8 (byte 1)"),
        ([""], 2, "there is no text to write"),
        (["x"], 2, "character 'x' cannot be written"),
        (["x", "--unknown", "skip"], 2, "there is no text to write"),
        (["bad", "--out", "page.txt"], 2, "its suffix is '.txt', but must be one of .svg"),
        (["bad", "--out", "text.txt/page.svg"], 1, "page.svg"),
        (["bad", "--paper", "A9"], 2, "a paper 'A9' does not exist"),
        (["bad", "--margin", "200"], 2, "a margin of 200 mm"),
        (["bad", "--colour", "mud"], 2, "a colour 'mud' does not exist"),
        (["bad", "--up", "-1"], 2, "up must be higher than down"),
        (["bad", "--tries", "0"], 2, "0 is not in the range"),
        (["bad", "--bias", "inf"], 2, "bias is inf"),
        (["bad", "--style", "nobody"], 2, "there is no style 'nobody'"),
        (["bad", "--style-text", "bad"], 2, "say what is in --style: give that too"),
        (["bad", "--model", "nowhere"], 1, "there are no weights at nowhere"),
        (["bad", "--model", "other.safetensors"], 2, "stacked-lstm takes no text"),
    ],
)
def test_a_silly_argument_is_one_sentence(
    arguments: list[str], status: int, said: str, model: SequenceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SHIPPED", Path("model.safetensors"))
    model.save("other.safetensors")
    Path("text.txt").write_text("bad")
    Path("latin.txt").write_bytes(b"b\xe4d")
    Path("page.svg").write_text("before")
    before = sorted(Path().rglob("*"))
    refused = write(*arguments, "--seed", 1)
    assert isinstance(refused.exception, SystemExit), refused.exception
    assert refused.exit_code == status, refused.output
    assert said in " ".join(refused.stderr.split()), refused.stderr
    assert "Traceback" not in refused.output
    assert sorted(Path().rglob("*")) == before
    assert Path("page.svg").read_text() == "before"
