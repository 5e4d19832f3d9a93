"""Commands of seqdens in processes that something happens to, at a place that is named from outside.

`python tests/faults.py` imports what is slow to import once, and then forks a process for every command that it reads.
What a command does to files is a numbered list of operations ("os.rename out/last.safetensors"), which Python tells by
audit events; before one of them the process can send itself a signal (SIGKILL, or SIGSTOP while something is done to
its files), or have its files grow no further than some bytes: the next longer write is done in part, and then kills it
or fails as on a full disk. Nothing in seqdens knows of this.
"""

from __future__ import annotations

import csv
import fnmatch
import gc
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

SLOW = ("torch._dynamo", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin", "rich.progress", "seqdens.runner")
OPERATIONS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
LITTLE = [
    *("--set", "dataset.lines=8", "--set", "dataset.writers=3", "--set", "encoder.hidden_size=4"),
    *("--set", "encoder.layers=1", "--set", "head.components=2", "--set", "training.batch_size=2"),
    *("--set", "sampling.count=1", "--set", "sampling.steps=10", "--cache", "cache"),
]
PREPARE = ["prepare", "svc", "--data", "data", "--workers", "3", "--cache", "cache"]
RUN = ["run", "handwriting", *LITTLE, "--epochs", "3", "--out", "out", "--restartable"]
OF_TIME = ("seconds", "points_per_second")  # the columns of metrics.csv that no two runs share


class Fault(NamedTuple):
    """What happens before the `number`-th operation that the pattern `at` fits: a signal, or a limit of a file's size.

    With a limit, the signal is SIGKILL for a process that the next longer write kills, 0 for one that it fails in.
    """

    at: str = "*"
    number: int = 1
    signal: int = signal.SIGKILL
    most: int | None = None

    def happen(self) -> None:
        if self.most is None:
            os.kill(os.getpid(), self.signal)
            return
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if self.signal else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.most))


class Commands:
    """Starts commands in `folder`, each in a session of its own, its output in a file beside those of the others."""

    def __init__(self, server: subprocess.Popen[str], folder: Path, logs: Path) -> None:
        self.server, self.folder, self.logs = server, folder, logs
        self.started = 0

    def start(self, *args: str, fault: Fault | None = None, clock: bool = False) -> Command:
        """The command, begun; with `clock`, `time.time` is an hour earlier at each call."""
        self.started += 1
        log = self.logs / str(self.started)
        log.touch()  # the process may be killed before it could
        call = {"args": args, "folder": str(self.folder), "log": str(log), "fault": fault, "clock": clock}
        return Command(int(self.ask(call)), log, self)

    def run(self, *args: str, fault: Fault | None = None, clock: bool = False) -> Command:
        """The command, ended or stopped."""
        command = self.start(*args, fault=fault, clock=clock)
        command.wait(stopped=bool(fault) and fault.signal == signal.SIGSTOP)
        return command

    def ask(self, question: dict[str, Any]) -> str:
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(question), file=self.server.stdin, flush=True)
        return self.server.stdout.readline()


class Command:
    """A command that was started: `status` is its exit status, or minus the signal that killed or stopped it."""

    def __init__(self, process: int, log: Path, commands: Commands) -> None:
        self.process, self.log, self.commands = process, log, commands
        self.status: int | None = None

    def wait(self, *, stopped: bool = False) -> int:
        """Until it has ended, or is `stopped`."""
        self.status = int(self.commands.ask({"wait": self.process, "stopped": stopped}))
        return self.status

    def send(self, number: int) -> None:
        os.kill(self.process, number)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def operations(self) -> list[str]:
        return self.log.with_suffix(".operations").read_text().splitlines()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("Error:")]

    @property
    def epochs(self) -> list[int]:
        """Those that it said to be finished."""
        return [int(line.split()[1][:-1]) for line in self.said.splitlines() if line.startswith("epoch ")]

    def gone(self) -> bool:
        """Whether no process of its session is left soon after, those that it had forked neither."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.01)
        return False


def serve() -> None:
    """Forks a process for each command on stdin and says its id; tells how one ended when asked to wait for it."""
    for module in SLOW:
        import_module(module)
    gc.freeze()  # what is there already then stays shared, and is not gone through when a process ends

    for line in sys.stdin:
        call = json.loads(line)
        if "wait" in call:
            status = os.waitpid(call["wait"], os.WUNTRACED * call["stopped"])[1]
            print(-os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status), flush=True)
            continue
        process = os.fork()
        if not process:
            return carry_out(**call)
        print(process, flush=True)


def carry_out(args: Sequence[str], folder: str, log: str, fault: Sequence[Any] | None, clock: bool) -> None:
    """`python -m seqdens` with these arguments, as this process, which ends."""
    os.setsid()
    os.chdir(folder)
    for descriptor, file in enumerate(
        (os.open(os.devnull, os.O_RDONLY), *[os.open(log, os.O_CREAT | os.O_WRONLY)] * 2)
    ):
        os.dup2(file, descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if clock:
        now = iter(range(2_000_000_000, 0, -3600))
        time.time = lambda: float(next(now))
    watch(
        folder, os.open(f"{log}.operations", os.O_CREAT | os.O_WRONLY | os.O_APPEND), Fault(*fault) if fault else None
    )
    sys.argv = ["seqdens", *args]
    runpy.run_module("seqdens", run_name="__main__", alter_sys=True)


def watch(folder: str, log: int, fault: Fault | None) -> None:
    """From now on each operation on the folder's files is written to `log`, and the fault happens at its place."""
    process, left = os.getpid(), [fault.number if fault else 0]

    def heed(event: str, args: tuple[Any, ...]) -> None:
        operation = operation_of(event, args, folder)
        if not operation or os.getpid() != process:
            return
        if fault and fnmatch.fnmatchcase(operation, fault.at):
            left[0] -= 1
            if not left[0]:
                fault.happen()
        if not fault or fault.most is None:
            os.write(log, f"{operation}\n".encode())

    sys.addaudithook(heed)


def operation_of(event: str, args: tuple[Any, ...], folder: str) -> str:
    """What an audit event does to the folder's files, in words without random names; empty for anything else."""
    if event == "open":
        path, _, flags = args
        event = "write" if isinstance(path, str | os.PathLike) and flags & os.O_ACCMODE else ""
    elif event == "os.fork":
        return event
    elif event in OPERATIONS:
        path = args[1] if event == "os.rename" else args[0]
    else:
        event = ""
    if not event:
        return ""
    name = os.path.relpath(os.fspath(path), folder) if os.path.isabs(path) else os.fspath(path)
    return "" if name.startswith("..") else f"{event} {name}"


# What must hold afterwards


def contents(folder: Path) -> dict[str, Any]:
    """Every file below the folder, by name: its bytes, but of `metrics.csv` without times, and not `trainer.pt`."""
    return {
        str(path.relative_to(folder)): metrics(path) if path.name == "metrics.csv" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "trainer.pt"
    }


def metrics(path: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv`, none where it is missing, without their times."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in OF_TIME} for row in csv.DictReader(file)]


def check_whole(folder: Path, epochs: Sequence[int]) -> None:
    """What is under its own name can be used, and holds all that was said to be finished."""
    import torch

    from seqdens.cache import Prepared
    from seqdens.model import SequenceModel

    for path in folder.glob("cache/*.h5"):
        Prepared(path)
    for path in folder.glob("out/*.safetensors"):
        SequenceModel.load(path)
    rows = metrics(folder / "out" / "metrics.csv")
    assert len(rows) >= max(epochs, default=0), rows
    if (folder / "out" / "trainer.pt").exists():
        state = torch.load(folder / "out" / "trainer.pt", weights_only=True)
        assert state["progress"]["epoch"] >= len(rows)


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders, and locks, below the folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def emptied(folder: Path) -> None:
    """Leaves nothing in it but an empty folder for a run, and signatures to prepare."""
    rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    (folder / "data").mkdir()
    for user in range(1, 13):
        rows = [f"{7 * row % (90 + user)} {row} {10 * row} 1\n" for row in range(500)]
        (folder / "data" / f"U{user}S1.TXT").write_text("".join(("500\n", *rows)))


@contextmanager
def serving(folder: Path, logs: Path) -> Iterator[Commands]:
    """Within the block, commands that work in `folder`."""
    environment = os.environ | {
        "SEQDENS_PLUGINS": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    arguments = [sys.executable, __file__]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        yield Commands(server, folder, logs)


if __name__ == "__main__":
    serve()
