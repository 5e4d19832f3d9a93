"""When Ctrl-C and SIGTERM may stop what: training between two steps, and no tidying up.

Signals reach the main thread alone: in another nothing here changes anything. Those that were ignored before, as in a
background job, stay ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt, SystemExit):
    """What SIGTERM raises, as Ctrl-C raises `KeyboardInterrupt`; a script that lets it pass ends with status 143."""

    status = 128 + signal.SIGTERM

    def __init__(self) -> None:
        SystemExit.__init__(self, self.status)


STOPS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
SAME = 1.0  # seconds in which signals are one: `torchrun` passes on what also reaches its processes themselves


class Interrupt:
    """True once somebody asked to stop; `asked` is the number of the signal, 0 until then."""

    def __init__(self) -> None:
        self.asked = 0

    def __bool__(self) -> bool:
        return self.asked > 0


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within the block, an `Interrupt` that the first Ctrl-C or SIGTERM sets.

    A second one, at least a second after it, takes its usual course.
    """
    interrupt, before, first = Interrupt(), _heeded(), 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not interrupt:
            interrupt.asked, first = number, time.monotonic()
        elif time.monotonic() >= first + SAME:
            _handle(before)
            signal.raise_signal(number)

    _handle(dict.fromkeys(before, ask))
    try:
        yield interrupt
    finally:
        _handle(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within the block, of little that must not be left half-way, Ctrl-C and SIGTERM wait until its end.

    A process that is forked there does not wait.
    """
    before, owner = _heeded(), os.getpid()
    received: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            _end(number)
        received.append(number)

    _handle(dict.fromkeys(before, hold))
    try:
        yield
    finally:
        _handle(before)
        for number in dict.fromkeys(received):
            signal.raise_signal(number)


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Within the block, SIGTERM ends the processes that `multiprocessing` started and raises `Terminated`.

    One that it has forked ends at once, as without this.
    """
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            _end(number)
        from multiprocessing import active_children

        for child in active_children():
            child.kill()  # one that has only just been forked may miss any other signal
        raise Terminated

    before = {number: handler for number, handler in _heeded().items() if number == signal.SIGTERM}
    _handle(dict.fromkeys(before, terminate))
    try:
        yield
    finally:
        _handle(before)


def _heeded() -> dict[int, Any]:
    """The handlers of the signals that stop this process."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in STOPS}
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}


def _handle(handlers: Mapping[int, int | Callable[[int, FrameType | None], Any]]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _end(number: int) -> None:
    """Ends the process as the signal does where nobody handles it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
