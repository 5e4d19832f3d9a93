"""`seqdens styles`: adding, listing, showing and removing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from seqdens.cli import cli
from seqdens.export import save_records

LINE = np.array([[30, 0, 0], [0, 40, 1], [25, -40, 0], [7, 40, 1]], np.float32)


def styles(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["styles", *map(str, args)], prog_name="seqdens")


@pytest.fixture(autouse=True)
def _own_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQDENS_STYLES", "styles")
    monkeypatch.chdir(tmp_path)


def test_without_styles_it_says_where_they_would_be() -> None:
    assert styles().output == "No styles in styles; `seqdens styles add` saves one.\n"


def test_a_record_is_added_listed_shown_and_removed() -> None:
    done = styles("add", "anna", "--from", "hershey:w000-l00000", "--set", "lines=6", "--set", "writers=3")
    assert (done.exit_code, done.output.split(":")[0]) == (0, "styles/anna.style")
    save_records([LINE], "line.npz")
    assert styles("add", "me", "--from", "line.npz", "--text", "two words", "--units", "hershey").exit_code == 0
    anna, me = styles().output.splitlines()
    assert anna.split()[0] == "anna"
    assert me.split() == ["me", "4", "points", "line.npz", "two", "words"]
    shown = styles("show", "me", "--out", "new/me.png")
    assert shown.output == "new/me.png: points 4, text 'two words'\n"
    with Image.open("new/me.png") as picture:
        assert picture.format == "PNG"
    assert styles("remove", "me").output == "removed me\n"
    assert styles().output.splitlines() == [anna]


def test_a_drawing_is_shown_as_a_model_would_read_it(make: Callable[..., Any], small: Callable[..., Any]) -> None:
    small(make()).save("model.safetensors")
    Path("a.svg").write_text('<svg><path d="M0 0q5 9 10 0"/></svg>')
    shown = styles("show", "a.svg", "--text", "a b", "--model", "model.safetensors")
    assert (shown.exit_code, shown.output) == (0, "a.png: points 64, text 'a b'\n")


def test_bad_input_leaves_what_was_there() -> None:
    save_records([LINE], "line.npz")
    styles("add", "me", "--from", "line.npz", "--text", "ab")
    before = Path("styles/me.style").read_bytes()
    Path("bad.svg").write_text("<svg/>")
    for source in ("line.npz", "bad.svg", "none.svg", "hershey:none"):
        refused = styles("add", "me", "--from", source, "--replace")
        assert refused.exit_code != 0
        assert "Traceback" not in refused.output
    taken = styles("add", "me", "--from", "line.npz", "--text", "other")
    assert "there is a style 'me' already" in taken.output
    assert Path("styles/me.style").read_bytes() == before


def test_a_damaged_style_does_not_hide_the_others() -> None:
    save_records([LINE], "line.npz")
    styles("add", "me", "--from", "line.npz", "--text", "ab")
    Path("styles/bad.style").write_text("{")
    listed = styles()
    assert listed.exit_code == 0
    assert listed.stderr.startswith("Warning: cannot load 'styles/bad.style'")
    assert listed.stdout.startswith("me  4 points")
