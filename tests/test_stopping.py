"""Ctrl-C and SIGTERM in every phase of a run: what is saved goes on, nothing half-way is left, the status says why."""

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import seqdens
from seqdens import SequenceModel, components, interrupts
from seqdens.cli import cli, main
from seqdens.datasets.base import Source
from seqdens.training import checkpoints, trainer
from seqdens.training.run_folder import Run

LITTLE = [
    *("--set", "dataset.lines=6", "--set", "dataset.writers=3"),
    *("--set", "encoder.hidden_size=8", "--set", "head.components=2"),
    *("--set", "training.batch_size=1", "--set", "sampling.count=2", "--set", "sampling.steps=10"),
]
RUN = ("run", "handwriting", *LITTLE, "--epochs", "2", "--out", "out", "--cache", "cache")
AGAIN = "Stopped; what is saved goes on with: seqdens run handwriting --resume --out out --cache cache"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LAST_WORDS = {signal.SIGINT: "Interrupted.", signal.SIGTERM: "Terminated."}

PHASES = {
    "training": (trainer._Fit, "_backward"),
    "validating": (trainer, "evaluate"),
    "saving": (checkpoints, "random_state"),
    "sampling": (SequenceModel, "sample"),
}


class Slow(seqdens.Dataset):
    """Twenty files that take ten minutes each."""

    columns = (seqdens.X, seqdens.Y, seqdens.STROKE_END)

    def __init__(self, root: Path | None = None) -> None:
        pass

    def sources(self) -> list[Source]:
        return [Source(str(number)) for number in range(20)]

    def read(self, source: Source) -> Any:
        Path(f"reading {source.name}").touch()
        time.sleep(600)
        yield


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(components, "_registered", [])
    return tmp_path


def slow_in(phase: str, seconds: float) -> Callable[[], None]:
    """What makes the phase take that long the first time, once it has made a file "there"."""
    owner, name = PHASES[phase]
    function = getattr(owner, name)

    def slowly(*given: Any, **named: Any) -> Any:
        if not Path("there").exists():
            Path("there").touch()
            time.sleep(seconds)
        return function(*given, **named)

    return lambda: setattr(owner, name, slowly)


@contextmanager
def started(*arguments: str, first: Callable[[], Any] = bool, until: str = "there") -> Iterator[BaseProcess]:
    """The command in a process of its own, which has come so far that there is a file `until`."""

    def work() -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["seqdens", *arguments]
        with Path("said").open("w") as out, Path("errors").open("w") as err, redirect_stdout(out), redirect_stderr(err):
            first()
            main()

    process = multiprocessing.get_context("fork").Process(target=work)
    with warnings.catch_warnings(action="ignore"):  # forked with threads, which none of this waits for
        process.start()
    try:
        deadline = time.monotonic() + 60
        while not Path(until).exists():
            assert process.is_alive(), Path("errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def assert_stopped(process: BaseProcess, by: signal.Signals, *said: str) -> None:
    """By that signal, with these lines and no traceback, and nothing is left that is half-way."""
    process.join(30)
    errors = Path("errors").read_text()
    assert (process.exitcode, errors.split("\n")) == (STATUS[by], [*said, LAST_WORDS[by], ""])
    assert not [path for folder in ("cache", "out") for path in Path(folder).rglob(".*")]


def send(process: BaseProcess, number: int) -> None:
    os.kill(process.pid or 0, number)


def saved_step() -> Any:
    return torch.load("out/trainer.pt", weights_only=True)["progress"]["step"]


def assert_resumed() -> None:
    again = CliRunner().invoke(cli, ["run", "handwriting", "--resume", "--out", "out", "--cache", "cache"])
    assert again.exit_code == 0, again.output
    assert [row["epoch"] for row in Run(Path("out")).read_metrics()] == [1, 2]


@pytest.mark.parametrize("by", STATUS, ids=lambda by: by.name)
@pytest.mark.parametrize(("phase", "step"), [("training", 1), ("validating", 2), ("saving", 2), ("sampling", 4)])
def test_a_run_that_is_stopped_saves_and_says_how_to_go_on(phase: str, step: int, by: signal.Signals) -> None:
    with started(*RUN, first=slow_in(phase, 0.2)) as process:
        send(process, by)
        assert_stopped(process, by, "", AGAIN)
    assert saved_step() == step
    assert_resumed()


@pytest.mark.parametrize("phase", ["training", "validating", "saving"])
def test_the_second_stops_at_once(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SAME", 0.1)
    with started(*RUN, first=slow_in(phase, 600)) as process:
        send(process, signal.SIGINT)
        time.sleep(0.2)
        send(process, signal.SIGTERM)
        assert_stopped(process, signal.SIGTERM)


def test_what_a_launcher_sends_and_passes_on_is_one() -> None:
    with started(*RUN, first=slow_in("training", 0.3)) as process:
        send(process, signal.SIGTERM)
        time.sleep(0.05)
        send(process, signal.SIGTERM)
        assert_stopped(process, signal.SIGTERM, "", AGAIN)
    assert saved_step() == 1


@pytest.mark.parametrize("command", [("prepare", "slow"), ("run", "handwriting", "--dataset", "slow", "--out", "out")])
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_while_data_are_prepared_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], workers: int
) -> None:
    seqdens.register("datasets", "slow", Slow)
    monkeypatch.setattr("seqdens.prepare.cores", lambda: workers)
    with started(*command, "--cache", "cache", until=f"reading {workers - 1}") as process:
        send(process, signal.SIGTERM)
        assert_stopped(process, signal.SIGTERM)
        with pytest.raises(ProcessLookupError):  # nobody goes on
            os.killpg(process.pid or 0, 0)
    assert not list(Path("cache").iterdir())
    assert not Path("out").exists()


def test_what_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with started(*RUN, first=slow_in("training", 0.2)) as process:
            send(process, signal.SIGTERM)
            process.join(60)
            assert process.exitcode == 0
    finally:
        signal.signal(signal.SIGTERM, before)
