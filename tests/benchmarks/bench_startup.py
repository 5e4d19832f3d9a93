"""How long the command line takes to answer, as a ratio to `import click`: medians of alternated runs.

The help and the lists should take at most three times as long. Run it as `python tests/benchmarks/bench_startup.py`.
"""

import subprocess
import sys
import time
from functools import partial
from statistics import median

from comparing import command_line

BASE = "import click"
COMMANDS = {
    BASE: ["-c", BASE],
    "seqdens --help": ["-m", "seqdens", "--help"],
    "seqdens list": ["-m", "seqdens", "list"],
    "import seqdens": ["-c", "import seqdens"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main(rounds: int = 15) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    for name, taken in times.items():
        print(f"{name:16} {1000 * median(taken):5.0f} ms   {median(taken) / median(times[BASE]):.2f} x")


if __name__ == "__main__":
    command_line(main, partial(main, rounds=1))
