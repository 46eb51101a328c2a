"""Output while a command works: a bar on a terminal, log lines always.

Below the bar are the numbers that the work reports. All goes to stderr, through one rich console on
a terminal, so that a log line does not tear the bar. Where stderr is no terminal, or rich is not installed,
there is no bar, and log lines are plain text.
"""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Advance:
    """Progress of a piece of work; shows nothing."""

    def advance(self, n: int = 1, **shown: object) -> None:
        """Counts `n` more units.

        Args:
          n: The number of units.
          shown: What to show under the bar from now on, such as `loss="1.23"`.
        """


class _Bar(Advance):
    def __init__(self, bar: "Progress", task: "TaskID") -> None:
        self._bar = bar
        self._task = task
        self._shown: dict[str, object] = {}

    def advance(self, n: int = 1, **shown: object) -> None:
        self._shown |= shown
        # A name and its value stay on one line: the spaces in between do not break.
        numbers = "  ".join(
            f"{name} {value}".replace(" ", "\N{NO-BREAK SPACE}") for name, value in self._shown.items()
        )
        self._bar.update(self._task, advance=n, shown=numbers)


@contextmanager
def progress(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Shows a bar while the block runs, if stderr is a terminal.

    Args:
      description: The name of the work.
      total: Number of units of all the work; None if unknown.
      unit: The name of the units, such as "batches".
    """
    if not _on_terminal():
        yield Advance()
        return
    with _view() as bar:
        yield _Bar(bar, bar.add_task(description, total=total, unit=unit, shown=""))


def _view() -> "Progress":
    """A bar with the numbers of its task on the lines below."""
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class View(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["shown"]:
                    yield Text(task.fields["shown"])

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  ETA", markup=False),
        TimeRemainingColumn(),
    )
    # The time that remains is computed from the last ten minutes, since a unit of work may take a minute.
    return View(*columns, console=_console(), transient=True, speed_estimate_period=600)


def configure_logging(level: int = logging.INFO) -> None:
    """Writes what seqjax logs, from `level` up, to stderr as plain lines.

    Args:
      level: A level of the standard library's `logging`.
    """
    logger = logging.getLogger("seqjax")
    # Each handler has its own level: a run's log file holds more than the screen.
    logger.setLevel(logging.DEBUG)
    for handler in [handler for handler in logger.handlers if isinstance(handler, _ScreenHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(_ScreenHandler(level))
    _occupy_root()


@contextmanager
def log_lines() -> Iterator[None]:
    """Writes what seqjax logs to stderr as plain lines while the block runs, if nobody configured logging.

    A program whose root logger has a handler, or that gave seqjax's logger a handler or a level, did.
    """
    logger = logging.getLogger("seqjax")
    shown = None if logger.hasHandlers() or logger.level else _ScreenHandler(logging.INFO)
    guard = _occupy_root()
    if shown is not None:
        logger.addHandler(shown)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        if shown is not None:
            logger.removeHandler(shown)
            logger.setLevel(logging.NOTSET)
        if guard is not None:
            logging.root.removeHandler(guard)


def _occupy_root() -> logging.Handler | None:
    """Gives a bare root logger a handler that does nothing, and returns it.

    Some libraries configure the root logger when they find it bare, and every line would appear twice.
    """
    if logging.root.handlers:
        return None
    guard = logging.NullHandler()
    logging.root.addHandler(guard)
    return guard


class _ScreenHandler(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if _on_terminal():
                _console().print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
            else:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
        except Exception:  # As the standard library's handlers do: a log line never ends the program.
            self.handleError(record)


def _on_terminal() -> bool:
    return sys.stderr.isatty() and find_spec("rich") is not None


@functools.cache
def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
