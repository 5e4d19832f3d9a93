"""docs/cli.md says what the live help says."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from seqdens.builtin import BUILTIN

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def page(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> str:
    """The page as it would be written with a package installed and in a narrow terminal."""
    use("seqdens-good")
    monkeypatch.setenv("COLUMNS", "40")
    return runpy.run_path(str(DOCS / "make_cli.py"))["page"]()


def test_the_page_is_the_live_help(page: str) -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == written, "the help has changed: run `python docs/make_cli.py`, which writes docs/cli.md anew"


def test_it_has_our_commands_and_nobody_else_s(page: str) -> None:
    headings = [line for line in page.splitlines() if line.startswith("## seqdens ")]
    assert headings == [f"## seqdens {name}" for name in BUILTIN["commands"]]
    assert "seqdens-good" not in page


@pytest.mark.parametrize("kind", ["datasets", "encoders", "heads", "experiments"])
def test_it_has_our_components(page: str, kind: str) -> None:
    assert all(f" {name}\n" in page for name in BUILTIN[kind])
