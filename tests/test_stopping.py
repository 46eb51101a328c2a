import os
import signal
import subprocess
import sys
import time

import pytest

from seqjax.stopping import Stopped, noted, stoppable


@pytest.fixture(autouse=True)
def as_in_a_shell():
    """Interrupts arrive, though the tests may have been started to ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


def test_a_signal_that_is_ignored_stays_ignored():
    def run():
        with stoppable():
            send("SIGINT")
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            send("SIGTERM")
            time.sleep(10)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(Stopped):
        run()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("block", ["stoppable", "noted"])
def test_a_second_interrupt_ends_at_once(block):
    program = f"""
import os, signal, time
from seqjax.stopping import {block}
signal.signal(signal.SIGINT, signal.default_int_handler)  # As in a shell, however the tests were started.
with {block}():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep({0 if block == "noted" else 10})
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        print("saved")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")  # A shell says 130.


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_noted_signal_is_raised_after_the_block(name):
    before, done = handlers(), []

    def run():
        with noted() as note:
            send(name)
            send("SIGTERM")
            done.append(note.signal)

    with pytest.raises(KeyboardInterrupt) as error:
        run()
    assert done == [getattr(signal, name)]
    assert getattr(error.value, "signal", signal.SIGINT) == getattr(signal, name)
    assert handlers() == before


def test_a_function_that_may_be_left_is_left():
    def run():
        with noted() as note:
            with note.at_once():
                send("SIGUSR1")
            time.sleep(10)

    with pytest.raises(Stopped):
        run()


def test_without_a_signal_nothing_is_raised():
    before = handlers()
    with noted() as note:
        assert handlers() != before
    assert (note.signal, handlers()) == (0, before)
