"""The command line's frame: help, errors, and the commands list, show and plugins."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from seqdens import components, native
from seqdens.cli import aligned, cli
from seqdens.errors import DataError, UsageError
from seqdens.version import __version__

Use = Callable[..., None]


@pytest.fixture(autouse=True)
def _forget_what_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_registered", [])


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, args, prog_name="seqdens")


def text(result: Result) -> str:
    """The output on one line, whatever the terminal's width."""
    return " ".join(result.output.split())


def command(name: str, action: Any) -> None:
    """Register a command that does nothing but `action()`."""
    components.register("commands", name, click.Command(name, callback=action))


def failing(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["plugins"], ["list", "encoders"]])
def test_neither_torch_nor_an_outsider_is_imported(site: Path, arguments: list[str]) -> None:
    script = (
        "import sys, seqdens.cli\n"
        "try:\n    seqdens.cli.cli(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'h5py', 'matplotlib', 'rich', 'pluggy', 'seqdens_good', 'seqdens_broken'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    paths = os.pathsep.join([str(site), str(Path(__file__).parents[1])])
    environment = os.environ | {"SEQDENS_PLUGINS": "seqdens-good,seqdens-broken", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "seqdens-good 1.2" in done.stdout or arguments == ["--help"]


def test_help_gives_the_text_of_our_commands_and_the_owner_of_others(use: Use) -> None:
    use("seqdens-good", "seqdens-broken", "seqdens-malformed")
    said = text(call("--help"))
    assert "list List what exists and who provides it." in said
    assert "greet (from seqdens-good 1.2)" in said
    assert "crash (from seqdens-broken 0.3)" in said
    assert "Warning: The entry points of seqdens-malformed 2.0 cannot be read" in said


def test_help_tells_of_a_command_of_two_owners(use: Use) -> None:
    use("seqdens-good")
    components._registered.append(components.Provider("commands", "greet", None, "somebody 1.0"))
    assert "greet (provided twice, by seqdens-good 1.2 and somebody 1.0)" in text(call("--help"))


def test_help_tells_of_a_command_of_ours_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(components.BUILTIN["commands"], "evaluate", "seqdens.cli.no_such_module:evaluate")
    shown = call("--help")
    assert "ModuleNotFoundError" in text(shown)
    assert "plugins" in shown.output


def test_a_command_of_a_package_runs(use: Use) -> None:
    use("seqdens-good")
    assert call("greet", "world").output == "hello world\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash", "Error: 'crash' of commands cannot be loaded from seqdens_broken:crash (seqdens-broken 0.3)"),
        ("number", "Error: 'number' of commands (seqdens-broken 0.3) is [], but must be a click command."),
    ],
)
def test_a_broken_command_breaks_nothing_but_itself(use: Use, name: str, reason: str) -> None:
    use("seqdens-broken", "seqdens-good")
    __import__("seqdens_good").EVENTS.clear()
    broken = call(name)
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert broken.stderr.startswith(reason)
    assert call("greet", "world").exit_code == 0


def test_an_unknown_command_suggests_the_nearest() -> None:
    unknown = call("lst")
    assert unknown.exit_code == 2
    assert (
        "Error: No such command 'lst'; did you mean 'list'? known: evaluate, export, list, new-plugin,"
        in unknown.stderr
    )


@pytest.mark.parametrize(("kind", "status"), [(UsageError, 2), (DataError, 1)])
def test_an_error_is_one_line_and_an_exit_status(kind: type[Exception], status: int) -> None:
    command("fail", failing(kind("what went wrong.")))
    failed = call("fail")
    assert (failed.exit_code, failed.stdout, failed.stderr) == (status, "", "Error: what went wrong.\n")


@pytest.mark.parametrize(("arguments", "environment"), [(["--debug"], {}), ([], {"SEQDENS_DEBUG": "1"})])
def test_debug_shows_the_traceback(arguments: list[str], environment: dict[str, str]) -> None:
    command("fail", failing(UsageError("what went wrong.")))
    failed = CliRunner(env=environment).invoke(cli, [*arguments, "fail"])
    assert failed.exit_code == 2
    assert "Traceback" in failed.stderr
    assert failed.stderr.endswith("Error: what went wrong.\n")
    assert "Traceback" not in call("fail").stderr


def test_an_interrupt_exits_with_130() -> None:
    command("wait", failing(KeyboardInterrupt()))
    assert call("wait").exit_code == 130


def test_strictly_help_fails_with_one_line(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use("seqdens-malformed")
    monkeypatch.setenv("SEQDENS_STRICT_PLUGINS", "1")
    failed = call("--help")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: The entry points of seqdens-malformed 2.0")


def test_version() -> None:
    assert call("--version").output == f"seqdens, version {__version__}\n"


def test_a_closed_pipe_is_silent() -> None:
    reader = subprocess.Popen(
        [sys.executable, "-m", "seqdens", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert reader.stdout is not None
    assert reader.stderr is not None
    reader.stdout.close()
    assert reader.stderr.read() == b""
    reader.stderr.close()
    reader.wait()


def test_aligned_pads_all_but_the_end() -> None:
    assert aligned([("a", "bb"), ("ccc", "d")], "  ") == "  a    bb\n  ccc  d"
    assert aligned([]) == ""


def test_list_names_and_owners(use: Use) -> None:
    use("seqdens-good", "seqdens-double", "seqdens-malformed")
    encoders = call("list", "encoders")
    assert encoders.stdout.splitlines() == [
        "good          seqdens-double 5.0  provided twice, cannot be used",
        "good          seqdens-good 1.2    provided twice, cannot be used",
        f"memoryless    seqdens {__version__}",
        "nested        seqdens-good 1.2",
        f"stacked-lstm  seqdens {__version__}",
        f"window-lstm   seqdens {__version__}",
    ]
    assert encoders.stderr.startswith("Warning: The entry points of seqdens-malformed 2.0")
    assert call("list", "regularisers").stdout == "No regularisers are installed.\n"
    everything = call("list")
    assert "experiments\n  good-experiment  seqdens-good 1.2\n" in everything.stdout
    assert everything.stderr.count("seqdens-malformed") == 1


def test_list_refuses_an_unknown_kind() -> None:
    assert call("list", "models").exit_code == 2


def test_show_gives_purpose_owner_and_options(use: Use) -> None:
    use("seqdens-good")
    assert call("show", "good").stdout.splitlines() == [
        "good (encoders, seqdens-good 1.2, seqdens_good:Good)",
        "An encoder that copies its inputs.",
        "  option  type  default",
        "  cells   int   3        how many there are",
        '  mode    str   "a"',
    ]


def test_show_gives_an_experiment_as_toml_and_a_command_as_its_help(use: Use) -> None:
    use("seqdens-good")
    assert '\n\n[encoder]\nname = "good"\ncells = 4\n' in call("show", "good-experiment").stdout
    assert call("show", "greet").stdout.endswith("\nGreet somebody.\n")


def test_show_gives_the_events_of_a_hook(use: Use) -> None:
    use("seqdens-good")
    title, events = call("show", "recorder").stdout.splitlines()
    assert title.startswith("recorder (hooks, seqdens-good 1.2, seqdens_good:")
    assert events.startswith("  listens to ")
    assert "epoch_finished" in events
    assert "did you mean 'recorder'?" in call("show", "recoder").stderr


def test_show_gives_every_kind_that_has_the_name(use: Use) -> None:
    use("seqdens-good")
    command("good", lambda: None)
    shown = call("show", "good").stdout
    assert "good (encoders," in shown
    assert "good (commands," in shown


def test_show_of_nothing_suggests_over_all_kinds(use: Use) -> None:
    use("seqdens-good", "seqdens-malformed")
    unknown = call("show", "good-experimnt")
    assert unknown.exit_code == 2
    assert unknown.stderr.startswith("Error: nothing is named 'good-experimnt'; did you mean 'good-experiment'?")
    assert unknown.stderr.count("seqdens-malformed 2.0 cannot be read") == 1


def test_plugins_lists_packages_and_names(use: Use) -> None:
    use("seqdens-good", "seqdens-malformed")
    listed = call("plugins")
    assert listed.exit_code == 0
    assert listed.stdout.splitlines() == [
        "seqdens-good 1.2",
        "  encoders     good",
        "  encoders     nested",
        "  experiments  good-experiment",
        "  commands     greet",
        "  hooks        recorder",
        f"This machine: {native.describe()}",
    ]
    assert "seqdens-malformed 2.0" in listed.stderr


def test_plugins_without_packages() -> None:
    assert call("plugins", "--check").stdout.splitlines()[:-1] == ["No installed package adds to seqdens."]


def test_check_passes_a_good_package(use: Use) -> None:
    use("seqdens-good")
    checked = call("plugins", "--check")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert [line.split()[-1] for line in checked.stdout.splitlines()[1:-1]] == ["ok"] * 5


def test_check_reports_all_that_fails(use: Use) -> None:
    use("seqdens-broken", "seqdens-double", "seqdens-good", "seqdens-listeners", "seqdens-malformed")
    checked = call("plugins", "--check")
    assert checked.exit_code == 1
    for reason in [
        "'broken' of encoders cannot be loaded",
        "'quitter' of encoders cannot be loaded",
        "'number' of commands (seqdens-broken 0.3) is",
        "'broken-listener' of hooks cannot be loaded",
        "'misspelt' of hooks (seqdens-listeners 4.0) cannot listen",
        "'gmm-bernoulli' of heads is provided twice",
        "The entry points of seqdens-malformed 2.0",
    ]:
        assert f"Warning: {reason}" in checked.stderr
    assert [line.split()[-1] for line in checked.stdout.splitlines() if " nested " in line] == ["ok"]


def test_check_builds_what_it_finds(use: Use) -> None:
    use("seqdens-unbuildable")
    checked = call("plugins", "--check")
    assert checked.exit_code == 1
    assert [line.split()[-1] for line in checked.stdout.splitlines()[1:-1]] == ["ok"] + 5 * ["failed"]
    dataset, option, none, head, encoder = sorted(checked.stderr.splitlines())
    owner = "of experiments (seqdens-unbuildable 1.1)"
    assert dataset.startswith(f"Warning: 'misspelt-dataset' {owner} cannot be run: there is no 'hershy' among")
    assert option.startswith(f"Warning: 'misspelt-option' {owner} cannot be run with preset 'quick': part 'training'")
    assert none.startswith(f"Warning: 'no-experiment' {owner} is <class ")
    assert head.startswith("Warning: 'raising-head' of heads (seqdens-unbuildable 1.1) cannot be built: ZeroDivision")
    assert encoder.startswith("Warning: 'unfinished' of encoders (seqdens-unbuildable 1.1) cannot be built: TypeError")


def test_lack_of_memory_is_one_sentence() -> None:
    def exhaust(size: int) -> None:
        torch.empty(size, size)

    command("too-large", lambda: exhaust(10**7))
    command("far-too-large", lambda: exhaust(10**10))
    command("numpy-too-large", lambda: np.empty((10**8, 10**8)))
    for name in ("too-large", "far-too-large", "numpy-too-large"):
        refused = call(name)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith("Error: there is not enough memory for this; ")


def test_other_errors_of_the_program_keep_their_traceback() -> None:
    command("faulty", failing(RuntimeError("a mistake")))
    assert isinstance(call("faulty").exception, RuntimeError)


@pytest.mark.parametrize(("name", "option"), [("training", "learning_rate"), ("sampling", "bias")])
def test_the_options_of_a_run_are_shown(name: str, option: str) -> None:
    assert option in call("show", name).output
