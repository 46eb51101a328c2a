"""Signals that ask the program to stop: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1, which a scheduler can send.

`stoppable` turns each into an exception, so that a program ends in good order. Where there is something
to save that an exception would tear, `noted` holds the signal back: what runs in it looks at the note, saves,
and raises `stop_error`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


class Stopped(KeyboardInterrupt):
    """A signal other than an interrupt asked the program to save what it has and to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def stop_error(number: int) -> KeyboardInterrupt:
    """The exception of a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that was raised as `error`."""
    return error.signal if isinstance(error, Stopped) else signal.SIGINT


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns SIGTERM and SIGUSR1 into `Stopped` while the block runs, as SIGINT is into `KeyboardInterrupt`.

    After the first signal the block has time to end: further ones are ignored, but an interrupt, which ends
    the process at once. A signal that the process was started to ignore (nohup) stays ignored.
    """
    with _handling() as heeded:

        def stop(number: int, frame: object) -> None:
            del frame
            _ignore_others(heeded)
            raise stop_error(number)

        for number in heeded:
            signal.signal(number, stop)
        yield


class Note:
    """The signal that asked to stop, if one did."""

    def __init__(self) -> None:
        self.signal: int = 0
        """Its number; 0 if there was none."""
        self._at_once = False

    def raising(self, function: Callable[P, T]) -> Callable[P, T]:
        """A function in which a signal is raised after all, since it can be left at any point."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            self._at_once = True
            try:
                return function(*args, **kwargs)
            finally:
                self._at_once = False

        return call

    def take(self, number: int, frame: object) -> None:
        """Handles a signal."""
        del frame
        self.signal = number
        if self._at_once:
            raise stop_error(number)


@contextmanager
def noted() -> Iterator[Note]:
    """Notes the first signal while the block runs; further ones are treated as in `stoppable`.

    A signal that was noted, and that the block did not raise, is raised when the block ends.
    """
    note = Note()
    with _handling() as heeded:

        def take(number: int, frame: object) -> None:
            _ignore_others(heeded)
            note.take(number, frame)

        for number in heeded:
            signal.signal(number, take)
        yield note
    if note.signal:
        raise stop_error(note.signal)


@contextmanager
def _handling() -> Iterator[list[int]]:
    """The signals to handle; their handlers are put back in the end."""
    if threading.current_thread() is not threading.main_thread():  # Only that one may set handlers.
        yield []
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        yield heeded
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _ignore_others(heeded: list[int]) -> None:
    """After a first signal: an interrupt ends the process at once, the others are ignored."""
    for number in heeded:
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGINT in heeded:
        # The system's own action, which needs no turn of the interpreter: compiled code may be running.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
