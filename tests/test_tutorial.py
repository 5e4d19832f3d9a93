"""docs/write-a-plugin.md: the script made of it (which `.ci/run` runs), its examples, its tables of what there is."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import seqdens
from seqdens import testing
from seqdens.cli import cli

TUTORIAL = runpy.run_path(str(Path(__file__).with_name("tutorial.py")))
PAGE = TUTORIAL["PAGE"].read_text(encoding="utf-8")
STEPS = list(TUTORIAL["steps"](PAGE))
COMMANDS = [line for path, text in STEPS if not path for line in text.splitlines()]


def test_the_script_is_all_commands_and_files_of_the_page_in_their_order() -> None:
    blocks = re.findall(r"^```(?:sh|python)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    examples = TUTORIAL["EXAMPLE"].findall(PAGE)
    assert [text for text in blocks if text not in examples] == [text for _, text in STEPS]
    script = TUTORIAL["script"](PAGE)
    places = [script.index(text) for _, text in STEPS]
    assert places == sorted(places)
    assert script.startswith("set -e")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_file_is_written_whatever_is_in_it(tmp_path: Path) -> None:
    content = "a = '$HOME `date`' # \\\n\n\tb\n"
    page = f"<!-- not run: written to a.py -->\n```python\n{content}```\n\n```sh\ncp a.py b.py\n```\n"
    subprocess.run(["bash"], input=TUTORIAL["script"](page), text=True, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "b.py").read_text() == content


def test_its_examples_pass_the_tests_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(TUTORIAL["examples"](PAGE), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(TUTORIAL["PAGE"].parents[1]), "SEQDENS_PLUGINS": ""}
    environment |= {"SEQDENS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pytest", "-W", "error", "-v", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("TestSpirals::test_it_is_found_by_its_name", "test_it_counts_what_", "test_it_is_built_from_"):
        assert f"::{name}" in done.stdout


def test_a_command_that_fails_ends_the_script(tmp_path: Path) -> None:
    script = TUTORIAL["script"]("```sh\nfalse\ntouch reached\n```\n")
    done = subprocess.run(["bash"], input=script, text=True, check=False, cwd=tmp_path, capture_output=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("seqdens ")])
def test_its_commands_can_be_given(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments)


def test_it_uses_every_tool_for_authors() -> None:
    told = "\n".join(COMMANDS)
    for command in ("new-plugin", "plugins", "plugins --check", "list", "show", "prepare", "run"):
        assert f"seqdens {command}" in told
    assert "pip install -e " in told
    assert "pytest seqdens-ink" in COMMANDS


def test_the_files_that_it_changes_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, shlex.split(COMMANDS[0])[1:])
    assert done.exit_code == 0, done.output
    for path, _ in STEPS:
        assert Path(path).exists()
    for path in re.findall(r"^  (\S+\.py) ", PAGE, re.MULTILINE):
        assert Path("seqdens-ink", path).is_file()
    for lines in re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        assert lines in Path("seqdens-ink/pyproject.toml").read_text()


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the table under a heading."""
    rows = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].splitlines()
    return [name for row in rows if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]


def test_it_names_all_that_is_public() -> None:
    assert sorted(first_cells("What is public")) == sorted(seqdens.__all__)


@pytest.mark.parametrize("name", ["Dataset", "Encoder", "Head", "Distribution"])
def test_it_names_all_that_may_be_overridden(name: str) -> None:
    declared = getattr(seqdens, name)
    with_a_default = {each for each in vars(declared) if not each.startswith("_")} - declared.__abstractmethods__
    assert with_a_default <= {*re.findall(rf"`{name}\.(\w+)", PAGE)}


def test_what_it_names_may_be_overridden() -> None:
    section = PAGE.partition("\n## What may be overridden\n")[2].partition("\n## ")[0]
    named = re.findall(r"`(Dataset|Encoder|Head|Distribution)\.(\w+)", section)
    optional = [pair for pair in named if not hasattr(getattr(seqdens, pair[0]), pair[1])]
    assert optional == [("Dataset", "notes"), ("Distribution", "weights")]


def test_it_names_every_contract() -> None:
    assert sorted(first_cells("The contracts")) == testing.__all__
