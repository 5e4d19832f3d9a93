"""`seqdens new-plugin`: a package that installs and passes its tests, to be changed into one's own.

Its files are those of `templates/`, where $name, $Name, $NAME and $module stand for what they are called, and a line
that begins with "%head " (or "%!head ") is there with a head (or without one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from string import Template

import click

from seqdens.components import registry
from seqdens.errors import UsageError
from seqdens.files import replacing
from seqdens.plugins import find
from seqdens.registry import choices
from seqdens.version import __version__

TEMPLATES = files("seqdens.cli") / "templates"
EVERY = ("pyproject.toml", "README.md", "gitignore", "package/__init__.py", "package/py.typed")
FILES = {
    "dataset": ("package/dataset.py", "package/make_files.py", "tests/test_dataset.py"),
    "encoder": ("package/encoder.py", "tests/test_encoder.py"),
    "head": ("package/head.py", "tests/test_head.py"),
    "experiment": ("package/experiment.py", "tests/test_experiment.py"),
    "hooks": ("package/hooks.py", "tests/test_hooks.py"),
}
MEANT = dict.fromkeys(("listener", "listeners", "event", "events"), "hooks")
MARKER = "CHANGE: "


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--with",
    "parts",
    required=True,
    multiple=True,
    metavar="PART[,PART]",
    help=f"What it provides: {', '.join(FILES)}; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path(),
    help="Where its folder goes; default: here.",
)
def new_plugin(name: str, parts: Sequence[str], out: Path) -> None:
    """Write seqdens-NAME, a package that installs and passes its tests, for you to change."""
    chosen = chosen_parts(",".join(parts))
    check_name(name, chosen)
    folder = out / f"seqdens-{name}"
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name or another --out.")
    contents = package(name, chosen)
    with replacing(folder) as temporary:
        for path, content in contents.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(content, encoding="utf-8")
    click.echo(f"{folder}: {', '.join(contents)}\n\nTo change:")
    for path, line, what in places_to_change(contents):
        click.echo(f"  {folder / path}:{line}: {what}")
    click.echo("\nNext: " + "\n      ".join(next_commands(name, chosen, folder)))


def chosen_parts(text: str) -> list[str]:
    """The parts that `text` names, in the order of `FILES`; raises `UsageError` for what is none."""
    asked = [part.strip() for part in text.split(",")]
    for part in asked:
        if part not in FILES:
            raise UsageError(
                f"--with names {part!r}, which is no part of a package; {choices(MEANT.get(part, part), FILES)}"
            )
    return [part for part in FILES if part in asked]


def check_name(name: str, chosen: Sequence[str]) -> None:
    """Raises `UsageError` for a name that cannot be used, or that something has."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name.startswith("seqdens"):
        suggested = "-".join(re.findall("[a-z0-9]+", name.lower().removeprefix("seqdens"))).lstrip("-0123456789")
        raise UsageError(
            f"the name {name!r} must be lower-case letters and digits, with single hyphens between words, begin with "
            f"a letter, and leave out 'seqdens-'; for instance {suggested or 'my-plugin'!r}."
        )
    for part in chosen:
        providers = find("seqdens.hooks")[0] if part == "hooks" else registry(f"{part}s").providers()
        for taken in providers:
            if taken.name == name:
                raise UsageError(f"{name!r} of {taken.kind} is provided by {taken.owner}; choose another name.")
    if find_spec(module_of(name)):
        raise UsageError(f"a module {module_of(name)} is installed already; choose another name, or uninstall it.")


def module_of(name: str) -> str:
    return f"seqdens_{name.replace('-', '_')}"


def package(name: str, chosen: Sequence[str]) -> dict[str, str]:
    """The content of each file, by its path in the package."""
    words = {
        "name": name,
        "Name": "".join(word.capitalize() for word in name.split("-")),
        "NAME": name.replace("-", "_").upper(),
        "module": module_of(name),
        "version": ".".join(__version__.split(".")[:2]),
        "try_it": trying(name, chosen),
    }
    paths = [*EVERY, *(path for part in chosen for path in FILES[part])]
    return {destination(path, name): filled(path, words, chosen) for path in paths}


def destination(path: str, name: str) -> str:
    """Where in the package the file of a template goes; builds leave out templates whose names begin with a dot."""
    return f".{path}" if path == "gitignore" else re.sub("^package", module_of(name), path)


def filled(path: str, words: Mapping[str, str], chosen: Sequence[str]) -> str:
    """A template with its words in place, and the lines of the chosen parts alone."""
    text = (TEMPLATES / f"{path}.in").read_text(encoding="utf-8")
    there = re.sub(
        r"^%(!?)(\w+) ?(.*\n)", lambda line: line[3] * ((line[2] in chosen) ^ bool(line[1])), text, flags=re.MULTILINE
    )
    return Template(there).substitute(words)


def trying(name: str, chosen: Sequence[str]) -> str:
    """A command that shows what the package provides at work."""
    data = f" --data {name}-files" if "dataset" in chosen else ""
    if "experiment" in chosen:
        return f"seqdens run {name}{data}"
    components = [f" --{part} {name}" for part in ("dataset", "encoder", "head") if part in chosen]
    return f"seqdens run handwriting --preset quick{''.join(components)}{data}"


def places_to_change(contents: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """File, line and text of each mark."""
    for path, content in contents.items():
        for number, line in enumerate(content.splitlines(), start=1):
            if MARKER in line:
                yield path, number, line.partition(MARKER)[2].removesuffix(" -->")


def next_commands(name: str, chosen: Sequence[str], folder: Path) -> list[str]:
    place = str(folder) if folder.is_absolute() else f"./{folder}"
    files = [f"python -m {module_of(name)}.make_files {name}-files"] if "dataset" in chosen else []
    install = f"pip install -e {quote(f'{place}[test]')}"
    show = [f"seqdens show {name}"] if {*chosen} - {"hooks"} else []
    return [install, f"pytest {quote(place)}", "seqdens plugins --check", *show, *files, trying(name, chosen)]
