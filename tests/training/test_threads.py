import threading

import jax
import jax.numpy as jnp
import pytest

from seqjax.training.runners import Threads


def test_calls_have_the_settings_of_whoever_asks():
    threads = Threads(1, "test")
    with jax.enable_x64(True):
        wide = threads.submit(lambda: jnp.zeros(()).dtype)
    narrow = threads.submit(lambda: jnp.zeros(()).dtype)
    assert (wide.result(), narrow.result()) == (jnp.float64, jnp.float32)
    device = jax.devices("cpu")[-1]
    with jax.default_device(device):
        assert threads.submit(lambda: jnp.zeros(()).devices()).result() == {device}
    threads.close()


def test_an_error_reaches_whoever_asks():
    threads = Threads(1, "test")
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result()
    threads.close()


def test_closing_waits_for_what_is_begun_and_drops_the_rest():
    threads, begun, go_on = Threads(1, "test"), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go_on.wait(10)
        return "done"

    first, second = threads.submit(work), threads.submit(work)
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    threads.close()
    assert first.result(0) == "done"
    assert second.cancelled()


def test_without_threads_calls_are_made_at_once():
    threads = Threads(0, "test")
    assert threads.submit(threading.current_thread).result(0) is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0)
    threads.close()
