"""A bar on a terminal and nothing elsewhere; log lines always, as they are."""

import io
import logging
import sys

import pytest

from seqjax import console as module
from seqjax.console import configure_logging, log_lines, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bare(monkeypatch):
    """Logging as it is in a new process, from when it is called: pytest has handlers of its own."""

    def start():
        monkeypatch.setattr(logging.root, "handlers", [])
        monkeypatch.setattr(logging, "lastResort", None)

    return start


@pytest.fixture
def logger():
    logger = logging.getLogger("seqjax")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def terminal(monkeypatch):
    """Makes stderr a terminal from when it is called: pytest sets stderr anew before the test itself."""

    def start():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    monkeypatch.setenv("TERM", "xterm")
    module._console.cache_clear()
    yield start
    module._console.cache_clear()


def test_without_a_terminal_there_is_no_bar(capsys):
    with progress("epoch 1", 3, "batches") as bar:
        bar.advance(3, loss="0.5")
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "")


def test_on_a_terminal_the_bar_counts_and_shows(terminal):
    stream = terminal()
    with progress("epoch [red]1", 3, "batches") as bar:
        bar.advance(2, loss="0.5")
        bar.advance(lr=0.1)
    assert "epoch [red]1" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "ETA" in stream.getvalue()
    assert "loss\N{NO-BREAK SPACE}0.5  lr\N{NO-BREAK SPACE}0.1" in stream.getvalue()


def test_on_a_narrow_terminal_the_numbers_take_several_lines(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = terminal()
    shown = {f"number_{index}": f"value_{index}" for index in range(6)}
    with progress("train", 3, "batches") as bar:
        bar.advance(1, **shown)
    lines = stream.getvalue().split("\n")
    for name, value in shown.items():
        assert any(f"{name}\N{NO-BREAK SPACE}{value}" in line for line in lines)


def test_a_log_line_goes_to_stderr_as_it_is(capsys, logger):
    configure_logging()
    logger.info("columns [bold]a[/bold]: %d", 3)
    logger.debug("not shown")
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "columns [bold]a[/bold]: 3\n")


def test_a_log_line_is_not_torn_on_a_terminal(terminal, logger):
    stream = terminal()
    configure_logging()
    line = "[bold]a[/bold] :smile: " + 30 * "long "
    with progress("epoch", 3, "batches"):
        logger.info(line)
    assert line in stream.getvalue()


def test_configuring_twice_does_not_double_the_lines(capsys, logger):
    configure_logging()
    configure_logging(logging.WARNING)
    logger.info("info")
    logger.warning("warning")
    assert capsys.readouterr().err == "warning\n"


def test_other_handlers_of_the_logger_stay(logger):
    kept = logging.NullHandler()
    logger.addHandler(kept)
    configure_logging()
    assert kept in logger.handlers


def test_lines_are_shown_to_whoever_configured_nothing(capsys, bare, logger):
    bare()
    with log_lines():
        logger.info("said")
        logger.debug("not shown")
        assert logging.root.handlers  # Some libraries would configure it otherwise.
    logger.info("after")
    assert capsys.readouterr().err == "said\n"
    assert (logging.root.handlers, logger.handlers, logger.level) == ([], [], logging.NOTSET)


@pytest.mark.parametrize(
    "configure",
    [
        lambda: logging.root.addHandler(logging.NullHandler()),
        lambda: logging.getLogger("seqjax").addHandler(logging.NullHandler()),
        lambda: logging.getLogger("seqjax").setLevel(logging.ERROR),
    ],
)
def test_a_program_that_configures_logging_decides_for_itself(capsys, bare, logger, configure):
    bare()
    configure()
    with log_lines():
        logger.warning("said")
    assert capsys.readouterr().err == ""
