"""Signals that ask the program to stop: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1, which a scheduler can send.

`stoppable` turns each into an exception, so that a program ends in good order. Where there is something
to save that an exception would tear, `noted` holds the signal back: what runs in it looks at the note, saves,
and raises `stop_error`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

    def stop(number: int) -> None:
        raise stop_error(number)

    with _handling(stop):
        yield


class Note:
    """The number of the signal that asked to stop; 0 if there was none."""

    def __init__(self) -> None:
        self.signal: int = 0
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises a signal after all while the block runs, since it can be left at any point."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def take(self, number: int) -> None:
        """Handles a signal."""
        self.signal = number
        if self._at_once:
            raise stop_error(number)


@contextmanager
def noted() -> Iterator[Note]:
    """Notes the first signal while the block runs; further ones are treated as in `stoppable`.

    A signal that was noted, and that the block did not raise, is raised when the block ends.
    """
    note = Note()
    with _handling(note.take):
        yield note
    if note.signal:
        raise stop_error(note.signal)


@contextmanager
def _handling(take: Callable[[int], None]) -> Iterator[None]:
    """Has the first signal taken, in the block; after it, an interrupt ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # Only that one may set handlers.
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def handle(number: int, frame: object) -> None:
        del frame
        for other in before:
            # For an interrupt the system's own action, which needs no turn of the interpreter: compiled code
            # may be running.
            signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else signal.SIG_IGN)
        take(number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
