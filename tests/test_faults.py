"""Processes that are killed or stopped, disks that are full, folders that vanish: the same command goes on.

A few places of each kind; `tests/benchmarks/kill.py` goes through all of them, and through moments by chance.
"""

import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("Windows has neither fork nor such signals", allow_module_level=True)

FAULTS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("faults.py"))))
RUN, PREPARE, Fault = FAULTS.RUN, FAULTS.PREPARE, FAULTS.Fault


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    top = tmp_path_factory.mktemp("faults")
    with FAULTS.serving(top / "here", top) as commands:
        yield commands


@pytest.fixture(scope="module")
def undisturbed(served: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    """What each command leaves that nothing happens to."""
    left = {}
    for args in (RUN, PREPARE):
        FAULTS.emptied(served.folder)
        done = served.run(*args)
        assert done.status == 0, done.said
        left[tuple(args)] = FAULTS.contents(served.folder)
    return left


@pytest.fixture
def here(served: Any, undisturbed: Any) -> Any:
    """The commands, in a folder where nothing is."""
    FAULTS.emptied(served.folder)
    return served


@pytest.fixture
def ends(here: Any, undisturbed: Any) -> Any:
    """Call with a command: it makes of what is there what it makes of nothing, and is returned."""

    def check(args: list[str]) -> Any:
        done = here.run(*args)
        assert done.status == 0, done.said
        assert FAULTS.contents(here.folder) == undisturbed[tuple(args)]
        assert not FAULTS.leftovers(here.folder)
        return done

    return check


def test_a_run_that_is_killed_again_and_again(here: Any, ends: Any) -> None:
    epochs: list[int] = []
    for fault in (
        Fault("write cache/*/states"),
        Fault("os.rename cache/*"),
        Fault("os.mkdir out/.config.toml.*"),
        Fault("os.rename out/config.toml"),
        Fault("os.rename out/trainer.pt"),
        Fault("os.mkdir out/.best.*"),  # the first epoch's state is there, its weights are not
        Fault("os.rename out/last.*"),
        Fault("os.mkdir out/.trainer.pt.*", 2, most=1000),
        Fault("os.rename out/metrics.csv", 2),  # the last epoch's
        Fault("os.rename out/loss.png"),
        Fault("os.rmdir out/.samples.svg.*"),
    ):
        killed = here.run(*RUN, fault=fault)
        assert killed.status == -(signal.SIGXFSZ if fault.most else signal.SIGKILL), (fault, killed.said)
        epochs += killed.epochs
        FAULTS.check_whole(here.folder, epochs)
    epochs += ends(RUN).epochs
    assert sorted(set(epochs)) == epochs  # none was done again once it had been said to be done


def test_a_run_that_is_killed_before_its_best_weights_are_saved(here: Any, ends: Any) -> None:
    killed = here.run(*RUN, fault=Fault("os.mkdir out/.best.*", 3))
    assert (killed.status, killed.epochs) == (-signal.SIGKILL, [1, 2])
    assert not ends(RUN).epochs  # the last had been saved


def test_a_file_is_cut_short_by_such_a_limit(here: Any) -> None:
    killed = here.run(*RUN, fault=Fault("os.mkdir out/.trainer.pt.*", 2, most=1000))
    assert (killed.status, killed.epochs) == (-signal.SIGXFSZ, [1])
    assert [path.stat().st_size for path in here.folder.glob("out/.trainer.pt.*/trainer.pt")] == [1000]


@pytest.mark.parametrize(
    ("at", "most"), [("write cache/*/states", None), ("write cache/*/states", 1000), ("os.rmdir cache/*", None)]
)
def test_a_prepare_that_is_killed(here: Any, ends: Any, at: str, most: int | None) -> None:
    killed = here.run(*PREPARE, fault=Fault(at, most=most))
    assert killed.status == -(signal.SIGXFSZ if most else signal.SIGKILL), killed.said
    assert FAULTS.leftovers(here.folder)
    ends(PREPARE)


def test_processes_that_read_end_with_the_one_that_is_killed(here: Any, ends: Any) -> None:
    killed = here.run(*PREPARE, fault=Fault("os.fork", 3))
    assert killed.status == -signal.SIGKILL, killed.said
    assert killed.gone()
    ends(PREPARE)


def test_a_disk_that_is_full_for_a_run(here: Any, ends: Any) -> None:
    for number, name in enumerate(("trainer.pt", "best.safetensors", "last.safetensors", "loss.png"), 1):
        failed = here.run(*RUN, fault=Fault(f"os.mkdir out/.{name}.*", 2 if number == 1 else 1, signal=0, most=1000))
        assert failed.status == 1
        assert failed.errors == [f"Error: cannot write 'out/{name}': File too large; choose another place."]
        assert not FAULTS.leftovers(here.folder)
        FAULTS.check_whole(here.folder, [1])
    ends(RUN)


def test_a_disk_that_is_full_for_a_prepare(here: Any, ends: Any) -> None:
    failed = here.run(*PREPARE, fault=Fault("os.mkdir cache/*", signal=0, most=1000))
    assert failed.status == 1
    (error,) = failed.errors
    assert error.startswith("Error: cannot write 'cache/svc-")
    assert error.endswith("File too large; choose another place.")
    assert not FAULTS.leftovers(here.folder)
    ends(PREPARE)


def test_a_run_s_folder_that_vanishes_and_comes_back(here: Any, ends: Any) -> None:
    out, elsewhere = here.folder / "out", here.folder / "elsewhere"
    unwritten = "cannot write 'out/{}': No such file or directory; choose another place."
    gone = "out was deleted, moved or replaced while the run was using it; put it back and go on with --resume"
    for error, *place in (
        (unwritten.format("best.safetensors"), "os.rmdir out/.trainer.pt.*"),  # between two files of a save
        (unwritten.format("metrics.csv"), "os.rename out/metrics.csv"),
        (f"{gone}, or start again.", "os.rmdir out/.metrics.csv.*"),
        (f"{gone}, or start again.", "os.rmdir out/.metrics.csv.*", 4),  # after the last epoch
    ):
        stopped = here.run(*RUN, fault=Fault(*place, signal=signal.SIGSTOP))
        assert stopped.status == -signal.SIGSTOP
        out.rename(elsewhere)
        stopped.send(signal.SIGCONT)
        assert stopped.wait() == 1
        assert stopped.errors == [f"Error: {error}"]
        assert not out.exists()
        elsewhere.rename(out)
    ends(RUN)


def test_a_cache_that_vanishes(here: Any, ends: Any) -> None:
    stopped = here.run(*PREPARE, fault=Fault("write cache/*/states", signal=signal.SIGSTOP))
    (here.folder / "cache").rename(here.folder / "elsewhere")
    stopped.send(signal.SIGCONT)
    assert stopped.wait() == 1
    (error,) = stopped.errors
    assert error.startswith("Error: cannot write 'cache/svc-")
    assert error.endswith("No such file or directory; choose another place.")
    FAULTS.emptied(here.folder)
    ends(PREPARE)


def test_a_clock_that_jumps_back(here: Any, undisturbed: Any) -> None:
    done = here.run(*RUN, clock=True)
    assert done.status == 0, done.said
    assert FAULTS.contents(here.folder) == undisturbed[tuple(RUN)]
    with (here.folder / "out" / "metrics.csv").open() as file:
        assert all(float(row[name]) > 0 for row in FAULTS.csv.DictReader(file) for name in FAULTS.OF_TIME)


def test_two_runs_on_one_folder(here: Any, undisturbed: Any) -> None:
    first = here.run(*RUN, fault=Fault("os.mkdir out/.last.*", 2, signal=signal.SIGSTOP))
    second = here.run(*RUN)
    assert second.status == 2
    assert second.errors == [
        "Error: out: another run is using it; wait until it has ended, or choose another folder (--out)."
    ]
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.said
    assert FAULTS.contents(here.folder) == undisturbed[tuple(RUN)]
    assert not FAULTS.leftovers(here.folder)


def test_two_prepares_at_once(here: Any, undisturbed: Any) -> None:
    first = here.run(*PREPARE, fault=Fault("os.rename cache/*", signal=signal.SIGSTOP))
    temporary = FAULTS.leftovers(here.folder)
    second = here.run(*PREPARE)
    assert second.status == 0, second.said
    assert FAULTS.leftovers(here.folder) == temporary != []
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.said
    assert FAULTS.contents(here.folder) == undisturbed[tuple(PREPARE)]
    assert not FAULTS.leftovers(here.folder)
