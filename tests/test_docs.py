"""What the README and the docs say: their Python runs, their links lead somewhere, their commands and options exist."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import click
import pytest

import seqdens
from seqdens import components
from seqdens.builtin import KINDS
from seqdens.cli import cli
from seqdens.cli.prepare import parse_options
from seqdens.configuration import COMPONENTS, PARTS, Sampling, parse_setting, resolve
from seqdens.plugins import GROUPS, find
from seqdens.registry import options_of
from seqdens.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
NAMES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(page.relative_to(ROOT)) for pages in ("docs/*.md", "plugins/*/README.md") for page in ROOT.glob(pages)),
]

FENCE = re.compile(
    r"(?:<!-- not run(?: without (?P<package>\w+))?: (?P<excuse>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^(?:\$ )?|&& |-m )seqdens( .+)$")
OPTION = re.compile(rf"({'|'.join(PARTS)})\.(\w+)(?:=.*)?")
HOMES = ("seqdens/", "docs/", "tests/", "plugins/", ".ci/")


@pytest.fixture(autouse=True)
def _forget_what_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> Iterator[re.Match[str]]:
    return (block for block in FENCE.finditer(page) if block["language"] == language)


def inline(page: str) -> list[str]:
    """What stands in backticks outside of blocks."""
    return INLINE.findall(FENCE.sub("", page))


def anchors(page: str) -> set[str]:
    """The fragments under which a page's headings are found."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_python(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Runs a page's Python, all blocks in one module; those with an excuse, or without their package, are compiled."""
    page = read(name)
    module = ModuleType(re.sub(r"\W", "_", name))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # so that its classes can be pickled
    for block in blocks(page, "python"):
        above = page[: block.start("code")].count("\n")
        code = compile("\n" * above + block["code"], name, "exec")
        if not block["excuse"] or (block["package"] and find_spec(block["package"])):
            exec(code, vars(module))
    return module


@pytest.mark.parametrize("name", [name for name in NAMES[1:] if any(blocks(read(name), "python"))])
def test_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(name, monkeypatch)


def test_the_readme_trains_saves_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = run_python("README.md", monkeypatch)
    assert module.history[-1]["valid_nats_per_point"] < module.history[0]["valid_nats_per_point"]
    assert Path("lines.svg").read_text().count("<path") >= 4
    assert seqdens.SequenceModel.load("model.safetensors").origin == module.model.origin


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = read(name)
    for link in LINK.findall(FENCE.sub("", page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, fragment = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name} links to {link}"
        assert not fragment or fragment in anchors(target.read_text(encoding="utf-8")), f"{name} links to {link}"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_names_in_backticks_exist(name: str) -> None:
    for text in inline(read(name)):
        for word in text.split():
            assert not word.startswith(HOMES) or (ROOT / word).exists(), f"{name} names {word}"
        if match := re.match(r"seqdens(?:\.[A-Za-z_]\w*)+", text):
            assert match[0] in GROUPS or resolves(match[0]), f"{name} names {text}"


def resolves(dotted: str) -> bool:
    """Whether this is a module or what one holds."""
    try:
        resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def commands(page: str) -> Iterator[tuple[list[str], bool]]:
    """The arguments of each `seqdens` command, and whether it is a whole one: in a block, not in a sentence."""
    for block in blocks(page, ""):
        for line in block["code"].replace("\\\n", " ").splitlines():
            if match := COMMAND.search(line):
                yield shlex.split(match[1], comments=True), True
    for text in inline(page):
        if text.startswith("seqdens ") and "COMMAND" not in text and (match := COMMAND.match(text)):
            yield shlex.split(match[1]), False


def skip_without_package(name: str) -> None:
    """A package's page has commands that exist where it is installed."""
    package = Path(name).parts[1] if name.startswith("plugins/") else ""
    owners = {provider.owner.split()[0] for group in GROUPS for provider in find(group)[0]}
    if package and package not in owners:
        pytest.skip(f"{package} is not installed")


def parse(command: click.Command, arguments: list[str], context: click.Context | None = None) -> click.Context:
    """The context in which the command, or the one within it, would run."""
    if isinstance(command, click.Group) and not (arguments and arguments[0].startswith("-")):
        group = click.Context(command, parent=context, info_name=command.name)
        if not arguments:
            raise click.MissingParameter("No command.", group, param_type="argument")
        name, rest = arguments[0], arguments[1:]
        found = command.get_command(group, name)
        assert found is not None, f"there is no command {name}"
        return parse(found, rest, group)
    return command.make_context(command.name, arguments, parent=context)


@pytest.mark.parametrize("name", NAMES)
def test_commands_parse(name: str) -> None:
    skip_without_package(name)
    for arguments, whole in commands(read(name)):
        try:
            check_settings(parse(cli, [argument for argument in arguments if argument != "..."]))
        except click.exceptions.Exit:  # --help
            continue
        except click.MissingParameter:
            assert not whole, f"{name} has an incomplete command: {shlex.join(arguments)}"
        except (click.UsageError, seqdens.SeqdensError) as error:
            raise AssertionError(f"{name}: seqdens {shlex.join(arguments)}: {error}") from error


def check_settings(context: click.Context) -> None:
    """Raises for an option in `--set`, a preset or a name that does not exist."""
    given = context.params
    if context.info_name == "run":
        chosen = {part: given[part] for part in COMPONENTS if given[part]}
        settings = map(parse_setting, given["settings"])
        resolve(components.experiment(given["experiment"]), preset=given["preset"], chosen=chosen, settings=settings)
    elif given.get("dataset"):
        components.dataset(given["dataset"], **parse_options(given["settings"]))
    elif context.info_name == "show" and "model" not in given:
        known = {name for kind in KINDS for name in components.registry(kind).names()} | {"training", "sampling"}
        assert given["name"] in known | {"NAME"}


def options_of_part(part: str) -> set[str]:
    """Every option that a part may have, whatever component is chosen for it."""
    if part not in COMPONENTS:
        return set(options_of({"training": Trainer, "sampling": Sampling}[part]))
    providers = components.registry(f"{part}s").providers()
    return {"name", "root"}.union(*(options_of(provider.load()) for provider in providers))


@pytest.mark.parametrize("name", NAMES)
def test_options_exist(name: str) -> None:
    skip_without_package(name)
    for text in inline(read(name)):
        if match := OPTION.fullmatch(text):
            assert match[2] in options_of_part(match[1]), f"{name} names {text}"


def test_a_wrong_command_is_seen() -> None:
    for wrong in (["sampel"], ["sample", "runs/x", "--nonsense"], ["run", "handwriting", "--set", "encoder.width=3"]):
        with pytest.raises((click.UsageError, seqdens.UsageError, AssertionError)):
            check_settings(parse(cli, wrong))
