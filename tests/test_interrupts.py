"""Stopping between two steps, with real signals."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from seqdens import interrupts
from seqdens.interrupts import Terminated, heeding_sigterm, interruptible, uninterrupted

pytestmark = pytest.mark.usefixtures("_heed_interrupts")


@pytest.fixture
def terminations() -> Any:
    """The SIGTERMs that reach the handler of before."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


class Clock:
    """Stands still until it is told the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(interrupts, "time", clock)
    return clock


def test_the_first_asks_and_the_second_takes_its_usual_course(clock: Clock) -> None:
    with interruptible() as interrupt:
        assert not interrupt
        signal.raise_signal(signal.SIGINT)
        assert interrupt
        clock.now += 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_within_a_second_are_one(clock: Clock, terminations: list[int]) -> None:
    with interruptible() as interrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert interrupt.asked == signal.SIGINT
            clock.now += 0.25
        assert terminations == []
        clock.now += 0.5
        signal.raise_signal(signal.SIGTERM)
        assert terminations == [signal.SIGTERM]


def test_sigterm_asks_too(clock: Clock, terminations: list[int]) -> None:
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert (bool(interrupt), terminations) == (True, [])
        clock.now += 1
        signal.raise_signal(signal.SIGTERM)
    assert terminations == [signal.SIGTERM]


@pytest.mark.parametrize("asked", [True, False])
def test_afterwards_handlers_are_those_of_before(asked: bool) -> None:
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def work() -> None:
        with interruptible():
            assert handlers() != before
            if asked:
                signal.raise_signal(signal.SIGINT)
            raise RuntimeError("work failed")

    before = handlers()
    with pytest.raises(RuntimeError, match="work failed"):
        work()
    assert handlers() == before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert not interrupt
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_an_interrupt_waits_for_what_must_not_be_left_half_way() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    with interruptible() as interrupt:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            assert not interrupt
        assert interrupt
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_sigterm_waits_too_and_then_raises(clock: Clock) -> None:
    done = []
    with heeding_sigterm():
        with pytest.raises(Terminated), uninterrupted():  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            done.append(True)
        with interruptible() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.asked == signal.SIGTERM
            clock.now += 1
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    assert done == [True]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def forked() -> Any:
    """A process that was forked here, and sleeps."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    child = context.Process(target=lambda: begun.set() or time.sleep(600), daemon=True)
    with warnings.catch_warnings(action="ignore"):
        child.start()
    assert begun.wait(30)
    return child


@pytest.mark.parametrize("within", [heeding_sigterm, uninterrupted])
def test_a_forked_process_ends_at_once(within: Callable[[], Any]) -> None:
    with within():
        child = forked()
    child.terminate()
    child.join(30)
    assert child.exitcode == -signal.SIGTERM


def test_sigterm_ends_the_processes_that_this_one_started() -> None:
    child = forked()
    with heeding_sigterm(), pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def test_a_failure_of_what_must_not_be_left_half_way_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_other_threads_leave_handlers_alone() -> None:
    outcome: list[Any] = []

    def work() -> None:
        with uninterrupted(), interruptible() as interrupt:
            outcome.extend([signal.getsignal(signal.SIGINT), bool(interrupt)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == [signal.default_int_handler, False]


def test_sigterm_ends_a_process_after_it_has_finished_its_step() -> None:
    script = (
        "import signal, time\n"
        "from seqdens.interrupts import interruptible\n"
        "with interruptible() as interrupt:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('step done', bool(interrupt), flush=True)\n"
        "    time.sleep(1.1)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "step done True\n")


def test_a_script_that_lets_a_sigterm_pass_ends_with_its_status_and_without_a_traceback() -> None:
    script = "from seqdens.interrupts import Terminated\ntry:\n    raise Terminated\nfinally:\n    print('tidied up')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "tidied up\n", "")
