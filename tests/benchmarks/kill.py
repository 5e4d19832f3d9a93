"""`prepare` or `run` killed hundreds of times, at every place and by chance, and on disks that are ever less full.

Of a small command (`tests/faults.py`): killed after random times, again and again; in the midst of every file, after a
random number of bytes; before every operation on its files, or every so many; and, where a disk can be mounted (on
Linux under `unshare -rm`), on disks of ever more bytes for as long as it fails. After each of these, what is under its
own name must be whole, and the same command, run once more, must end with the files of one that nothing happened to,
without leftovers, and without doing an epoch again that was said to be finished.

`unshare -rm python tests/benchmarks/kill.py prepare|run [CHANCES] [EVERY] [SEED]`; by default 100 kills by chance;
Ctrl-C ends it early.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from comparing import command_line, sized
from faults import PREPARE, RUN, Command, Commands, Fault, check_whole, contents, emptied, leftovers, serving

STEP = sized(8192, 1 << 18)  # bytes, by which the disks differ
FILES = sized(1, 30)  # every so many of those that are written are cut off


class Campaign:
    """Counts what was done to one command, and what went wrong."""

    def __init__(self, commands: Commands, args: Sequence[str]) -> None:
        self.commands, self.folder, self.args = commands, commands.folder, args
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.epochs: list[int] = []
        for _ in range(2):  # the first waits for what serves them
            self.begin()
            start = time.monotonic()
            done = commands.run(*args)
            self.seconds = time.monotonic() - start
            assert done.status == 0, done.said
        self.operations, self.undisturbed = done.operations, contents(self.folder)

    def begin(self) -> None:
        emptied(self.folder)
        self.epochs = []

    def happened(self, kind: str, command: Command) -> None:
        """Counts it, and looks at what it left."""
        self.counts[kind] += 1
        print(f"\r{sum(self.counts.values())}", end="", file=sys.stderr, flush=True)
        self.epochs += command.epochs
        self.expect(command.gone(), f"{kind}: a process is left")
        self.attempt(kind, lambda: check_whole(self.folder, self.epochs))

    def end(self, kind: str) -> None:
        """The same command once more, to its end."""
        done = self.commands.run(*self.args)
        self.epochs += done.epochs
        self.expect(done.status == 0, f"{kind}: {done.said}")
        self.expect(sorted(set(self.epochs)) == self.epochs, f"{kind}: epochs {self.epochs}")
        self.expect(not leftovers(self.folder), f"{kind}: {leftovers(self.folder)}")
        left = contents(self.folder)
        others = [name for name in left.keys() | self.undisturbed if left.get(name) != self.undisturbed.get(name)]
        self.expect(not others, f"{kind}: {others} are not what they were")

    def attempt(self, kind: str, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception as error:
            self.expect(False, f"{kind}: {error!r}")

    def expect(self, right: bool, otherwise: str) -> None:
        if not right:
            self.wrong.append(otherwise)
            print(f"WRONG: {otherwise}", flush=True)


def at_every_place(campaign: Campaign, every: int) -> None:
    for number, operation in list(enumerate(campaign.operations, 1))[::every]:
        campaign.begin()
        killed = campaign.commands.run(*campaign.args, fault=Fault(number=number))
        campaign.expect(killed.status == -signal.SIGKILL, f"{operation}: {killed.said}")
        campaign.happened("before an operation", killed)
        campaign.end(operation)


def in_every_file(campaign: Campaign, chance: random.Random) -> None:
    writes = [
        (number, operation)
        for number, operation in enumerate(campaign.operations, 1)
        if operation.startswith("write ") and not operation.endswith("/.lock")
    ]
    for number, operation in writes[::FILES]:
        name = operation.rpartition("/")[2]
        campaign.begin()
        sizes = {Path(each).name: size(content) for each, content in campaign.undisturbed.items()}
        fault = Fault(number=number, most=chance.randrange(sizes.get(name, 20_000)))
        killed = campaign.commands.run(*campaign.args, fault=fault)
        if killed.status == -signal.SIGXFSZ:  # the file was not written already
            campaign.happened("in the midst of a file", killed)
        campaign.end(f"{operation} at {fault.most}")


def size(content: Any) -> int:
    return len(content) if isinstance(content, bytes) else 100


def by_chance(campaign: Campaign, chance: random.Random, chances: int) -> None:
    campaign.begin()
    for _ in range(chances):
        command = campaign.commands.start(*campaign.args)
        time.sleep(chance.uniform(0, 1.2) * campaign.seconds)
        with suppress(ProcessLookupError):
            command.send(signal.SIGKILL)
        if command.wait() != -signal.SIGKILL:  # it had ended
            campaign.begin()
            continue
        campaign.happened(f"by chance, {phase(command, campaign)}", command)
        if chance.random() < 0.2:
            campaign.end("by chance")
            campaign.begin()


def phase(command: Command, campaign: Campaign) -> str:
    """What a command was doing when it was killed."""
    if any(".partial" in name for name in leftovers(campaign.folder)):
        return "while a file was written"
    if "Training" in command.said:
        return "between two files of a run"
    return "before"


def on_small_disks(campaign: Campaign) -> None:
    """On disks with all numbers of free blocks at which the command fails."""
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(campaign.folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        print("no disk can be mounted here")
        return
    try:
        free = 0
        while fails_with(campaign, free):
            free += STEP
    finally:
        subprocess.run(["umount", "--lazy", str(campaign.folder)], check=True)


def fails_with(campaign: Campaign, free: int) -> bool:
    """Whether so many bytes are too few; what must hold then is looked at."""
    campaign.begin()
    used = int(subprocess.check_output(["df", "--output=used", "-B1", str(campaign.folder)]).split()[1])
    resize(campaign.folder, used + free)
    failed = campaign.commands.run(*campaign.args)
    resize(campaign.folder, 1 << 30)
    if failed.status == 0:
        return False
    kind = "on a full disk"
    campaign.expect(len(failed.errors) == 1 and "Traceback" not in failed.said, f"{kind}, {free}: {failed.said[-500:]}")
    campaign.expect("cannot write '" in failed.said and "No space" in failed.said, f"{kind}: {failed.said[-500:]}")
    campaign.expect(not leftovers(campaign.folder), f"{kind}, {free}: {leftovers(campaign.folder)}")
    campaign.happened(kind, failed)
    campaign.end(f"{kind}, {free}")
    return True


def resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def main(name: str, chances: int = 100, every: int = 1, seed: int = 0) -> int:
    chance, start = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as top, serving(Path(top) / "here", Path(top)) as commands:
        campaign = Campaign(commands, {"prepare": PREPARE, "run": RUN}[name])
        with suppress(KeyboardInterrupt):
            by_chance(campaign, chance, chances)
            in_every_file(campaign, chance)
            on_small_disks(campaign)
            at_every_place(campaign, every)
    print(f"{name}, {time.monotonic() - start:.0f} s: {sum(campaign.counts.values())} times")
    for kind, count in campaign.counts.items():
        print(f"  {count:4} {kind}")
    print(f"{len(campaign.wrong)} went wrong")
    return int(bool(campaign.wrong))


def quick() -> int:
    return sum(main(name, chances=1, every=100) for name in ("prepare", "run"))


if __name__ == "__main__":
    command_line(main, quick)
