"""Threads that compute under the jax settings of whoever asks them to.

Which device is the default and how wide numbers are is each thread's own affair with jax, so that a call in
another thread has to be given them.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
Result = TypeVar("Result")


class Threads:
    """Some threads, which take up calls in the order in which these come.

    Args:
      count: Number of threads; 0 makes each call at once, in the thread of the caller.
      name: What they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, name) if count else None

    def submit(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> "Future[Result]":
        """Has a thread call a function."""
        if self._pool is None:
            done: Future[Result] = Future()
            done.set_result(function(*args, **kwargs))
            return done
        settings: Any = jax.config  # Has these attributes; they are not declared.
        device, is_wide = settings.jax_default_device, settings.jax_enable_x64

        def call() -> Result:
            with jax.default_device(device), jax.enable_x64(is_wide):
                return function(*args, **kwargs)

        return self._pool.submit(call)

    def close(self) -> None:
        """Drops the calls that are not begun, and waits for those that are."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
