"""Work in threads gives its results in order."""

import threading
import time

import pytest

from seqjax.data.passes import in_threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * 2

    assert list(in_threads(slow, range(20), threads)) == [number * 2 for number in range(20)]


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_threads(lambda number: number, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()  # type: ignore


def test_an_error_is_that_of_the_first_item_that_fails() -> None:
    later = threading.Event()

    def fail(number: int) -> int:
        if number == 1:
            later.wait(5)
            raise ValueError("first")
        if number == 2:
            later.set()
            raise ValueError("second")
        return number

    with pytest.raises(ValueError, match="first"):
        list(in_threads(fail, range(4), 3))
