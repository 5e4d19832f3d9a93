"""`seqdens new-plugin`: what it writes passes its own tests, and what it cannot write leaves nothing."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from seqdens.cli import cli
from seqdens.cli.new_plugin import FILES, TEMPLATES
from seqdens.cli.run import run

Python = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[1]
PARTS = {"points": "dataset", "waves": "encoder", "widths": "head", "a-b2": "experiment", "watch": "hooks"}
ALL = ",".join(FILES)


def new_plugin(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["new-plugin", *map(str, arguments)])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each part, and "all-in-one" of all, installed as far as metadata beside the modules go."""
    out = tmp_path_factory.mktemp("packages")
    folders = {}
    for name, parts in (PARTS | {"all-in-one": ALL}).items():
        done = new_plugin(name, "--with", parts, "--out", out)
        assert done.exit_code == 0, done.output
        folders[name] = out / f"seqdens-{name}"
        install(folders[name])
    return folders


def install(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    groups = project["entry-points"].items()
    text = "".join(f"[{group}]\n{key} = {line}\n" for group, lines in groups for key, line in lines.items())
    (info / "entry_points.txt").write_text(text, encoding="utf-8")


@pytest.fixture
def python(packages: dict[str, Path], tmp_path: Path) -> Python:
    """Call with a module and its arguments to run it where the packages are installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *packages.values()]))}
    environment |= {"SEQDENS_PLUGINS": ",".join(f"seqdens-{name}" for name in packages)}

    def call(*arguments: str | Path, folder: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return call


def test_a_package_of_all_parts_passes_its_tests(packages: dict[str, Path], python: Python) -> None:
    check_passes(python("pytest", "-p", "no:cacheprovider", folder=packages["all-in-one"]))


def test_a_package_of_any_part_passes_its_tests(packages: dict[str, Path], python: Python) -> None:
    folders = [packages[name] for name in PARTS]
    check_passes(python("pytest", "-p", "no:cacheprovider", *folders))


def check_passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9]\d* passed in ", done.stdout, re.MULTILINE), done.stdout


def test_it_is_found_and_works(packages: dict[str, Path], python: Python) -> None:
    checked = python("seqdens", "plugins", "--check")
    assert checked.returncode == 0, checked.stderr
    for name in packages:
        assert f"seqdens-{name} 0.1.0\n" in checked.stdout
    assert len(re.findall(r" ok$", checked.stdout, re.MULTILINE)) == 2 * len(FILES)


def test_its_files_to_try_it_on_are_read(packages: dict[str, Path], python: Python) -> None:
    assert python("seqdens_points.make_files", "ink").returncode == 0
    prepared = python("seqdens", "prepare", "points", "--data", "ink")
    assert "60 drawings (48 train, 12 valid, 0 test)" in " ".join(prepared.stdout.split()), prepared


@pytest.mark.parametrize("tool", ["check", "format --check"])
def test_it_is_in_good_style(packages: dict[str, Path], python: Python, tool: str) -> None:
    rules = ["--select", "E,F,W,I,B,UP,SIM,C4,RUF,PT,PIE"] if tool == "check" else []
    settings = ["--isolated", "--no-cache", "--line-length", "120", "--target-version", "py311", *rules]
    done = python("ruff", *tool.split(), *settings, folder=packages["all-in-one"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_places_to_change_are_told(tmp_path: Path) -> None:
    output = new_plugin("ink", "--with", ALL, "--out", tmp_path).output
    told = re.findall(r"^  (.+?):(\d+): (.+)$", output, re.MULTILINE)
    marked = [path for path in tmp_path.rglob("*.*") for line in path.read_text().splitlines() if "CHANGE" in line]
    assert len(told) == len(marked) > 15
    for path, line, what in told:
        assert what in Path(path).read_text().splitlines()[int(line) - 1]


def test_nothing_of_the_templates_is_left(packages: dict[str, Path]) -> None:
    for path in packages["all-in-one"].rglob("*.*"):
        assert path.suffix != ".in"
        assert not path.is_file() or not re.search(r"\$|^%", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_every_template_is_used(tmp_path: Path) -> None:
    contents = new_plugin("ink", "--with", ALL, "--out", tmp_path).output
    for path in Path(str(TEMPLATES)).rglob("*.in"):
        assert path.stem in contents


@pytest.mark.parametrize("parts", ["dataset,head", "experiment", "dataset,experiment", "encoder", "hooks"])
def test_the_next_commands_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: str) -> None:
    monkeypatch.chdir(tmp_path)
    output = new_plugin("ink", "--with", parts).output
    following = output.partition("Next: ")[2].splitlines()
    assert following[0] == "pip install -e './seqdens-ink[test]'"
    assert ("seqdens show ink" in output) is (parts != "hooks")
    context = run.make_context("run", shlex.split(following[-1])[2:])
    for part in ("dataset", "encoder", "head"):
        assert context.params[part] == ("ink" if part in parts and "experiment" not in parts else None)
    assert context.params["data"] == (Path("ink-files") if "dataset" in parts else None)
    assert following[-1].split("#")[0].strip() in Path("seqdens-ink/README.md").read_text()


def test_parts_come_in_any_order_and_once(tmp_path: Path) -> None:
    for name, parts in {"a1": ["head,dataset"], "a2": ["dataset, head,dataset"], "a3": ["head", "dataset"]}.items():
        given = [word for part in parts for word in ("--with", part)]
        assert new_plugin(name, *given, "--out", tmp_path / "new" / "folder").exit_code == 0
    first, *others = [(folder / "pyproject.toml").read_text() for folder in sorted((tmp_path / "new/folder").iterdir())]
    assert first.count("entry-points") == 2
    assert [re.sub("([aA])[23]", r"\g<1>1", other) for other in others] == [first] * 2


def test_what_it_makes_is_left_out_of_version_control(tmp_path: Path) -> None:
    new_plugin("ink", "--with", "dataset", "--out", tmp_path)
    new_plugin("net", "--with", "encoder", "--out", tmp_path)
    ignored = [(tmp_path / f"seqdens-{name}" / ".gitignore").read_text().split() for name in ("ink", "net")]
    assert ignored[0] == [*ignored[1], "ink-files/"]
    assert "__pycache__/" in ignored[1]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("My Ink", "my-ink"),
        ("9lives", "lives"),
        ("my_ink", "my-ink"),
        ("a--b", "a-b"),
        ("../ink", "ink"),
        ("/ink", "ink"),
        ("ink-", "ink"),
        ("seqdens-ink", "ink"),
        ("größe", "gr-e"),
        ("ink\n", "ink"),
        (".", "my-plugin"),
        ("", "my-plugin"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_another(tmp_path: Path, name: str, suggested: str) -> None:
    refusal = refused(tmp_path, name, "--with", "head")
    assert refusal.startswith(f"the name {name!r} must be lower-case letters and digits")
    assert refusal.endswith(f"for instance {suggested!r}.")
    assert new_plugin(suggested, "--with", "head", "--out", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("name", "parts", "told"),
    [
        ("hershey", "dataset", "'hershey' of datasets is provided by seqdens "),
        ("good", "head,encoder", "'good' of encoders is provided by seqdens-good 1.2; choose another name."),
        ("recorder", "hooks", "'recorder' of hooks is provided by seqdens-good 1.2; choose another name."),
        ("broken", "head", "a module seqdens_broken is installed already; choose another name, or uninstall it."),
        ("ink", "heads", "--with names 'heads', which is no part of a package; did you mean 'head'? known: dataset,"),
        ("ink", "listener", "--with names 'listener', which is no part of a package; did you mean 'hooks'? known: "),
        ("ink", "dataset,", "--with names '', which is no part of a package; known: dataset, encoder, exp"),
    ],
)
def test_what_is_taken_or_unknown_is_refused(
    use: Callable[..., None], tmp_path: Path, name: str, parts: str, told: str
) -> None:
    use("seqdens-good")
    assert refused(tmp_path, name, "--with", parts).startswith(told)


def test_a_name_taken_by_another_kind_of_thing_is_free(use: Callable[..., None], tmp_path: Path) -> None:
    use("seqdens-good")
    assert new_plugin("recorder", "--with", "head", "--out", tmp_path).exit_code == 0


def test_a_folder_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "seqdens-ink").mkdir()
    assert "seqdens-ink exists already" in refused(tmp_path, "ink", "--with", "head")


def test_parts_must_be_named(tmp_path: Path) -> None:
    done = new_plugin("ink", "--out", tmp_path)
    assert (done.exit_code, "Missing option '--with'" in done.stderr) == (2, True)


def refused(out: Path, *arguments: str) -> str:
    """The sentence of a refusal that leaves `out` as it is."""
    before = sorted(out.rglob("*"))
    done = new_plugin(*arguments, "--out", out)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1
    assert sorted(out.rglob("*")) == before
    return done.stderr.removeprefix("Error: ").strip()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def until_full(path: Path, content: str, **settings: str) -> int:
        if path.name == "head.py":
            raise OSError(28, "No space left on device")
        return write(path, content, **settings)

    monkeypatch.setattr(Path, "write_text", until_full)
    done = new_plugin("ink", "--with", "head", "--out", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: cannot write '{tmp_path / 'seqdens-ink'}': No space left on device")
    assert list(tmp_path.iterdir()) == []
