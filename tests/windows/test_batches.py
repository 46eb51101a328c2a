"""Padding, memory, and going on at any batch."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seqjax.windows import batches
from seqjax.windows.batches import BATCHES_AHEAD, Loader, batches_ahead
from seqjax.windows.order import Order
from seqjax.windows.windows import Batch, Windows, listed


@pytest.fixture
def windows() -> Windows:
    n = 23
    columns = {"item": np.arange(2, n + 4, dtype=np.int16)}
    return listed(columns, start=np.arange(n), length=np.full(n, 3), seq_length=2)


def _same(one: Batch, other: Batch) -> bool:
    return np.array_equal(one.padding, other.padding) and all(
        np.array_equal(one.columns[name], other.columns[name]) for name in one.columns
    )


@pytest.fixture
def order(windows: Windows) -> Order:
    """Batches of 5, the last one padded."""
    return Order(len(windows), 5, seed=7)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_are_those_of_the_order(windows: Windows, order: Order, num_workers: int) -> None:
    seen = list(Loader(windows, ("item",), num_workers=num_workers).batches(order))
    assert len(seen) == 5
    for batch, indices in zip(seen, order.batches(), strict=True):
        assert _same(batch, windows.gather(indices, ("item",)))
    assert seen[-1].padding.tolist() == [0, 0, 0, 3, 3]
    first_items = np.concatenate([batch.columns["item"][:, 0] for batch in seen])
    assert sorted(first_items[:23].tolist()) == list(range(2, 25))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_batch_can_be_gone_on_with(windows: Windows, order: Order, num_workers: int) -> None:
    loader = Loader(windows, num_workers=num_workers)
    whole = list(loader.batches(order))
    for begin in range(6):
        for end in range(begin, 6):
            seen = list(loader.batches(order, begin, end))
            assert len(seen) == end - begin
            assert all(_same(one, other) for one, other in zip(seen, whole[begin:end], strict=True))


def test_an_order_is_computed_some_batches_at_a_time(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCHES_PER_CHUNK", 3)
    order = Order(len(windows), 2, seed=7)
    for number, batch in enumerate(Loader(windows, num_workers=2).batches(order, 2), 2):
        assert _same(batch, windows.gather(order.batch(number)))


def test_rows_are_copied_into_memory_when_they_are_needed(windows: Windows, order: Order) -> None:
    mapped = np.asarray(windows.columns["item"])[:]
    rows = dataclasses.replace(windows, columns={"item": mapped, "other": mapped})
    loader = Loader(rows, ("item",), in_ram=True)
    expected = list(Loader(windows, ("item",)).batches(order))
    seen = list(loader.batches(order))
    assert all(_same(one, other) for one, other in zip(seen, expected, strict=True))
    mapped[:] = 0
    assert all(_same(one, other) for one, other in zip(loader.batches(order), expected, strict=True))


def test_memory_bounds_what_is_read_ahead(
    windows: Windows, order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    assert batches_ahead(1000, 2, None) == 2 * BATCHES_AHEAD
    assert batches_ahead(1000, 2, 5e-6) == 5
    assert batches_ahead(1000, 2, 1e-9) == 1
    loader = Loader(windows, num_workers=2, max_ram_gb=250e-9)
    with caplog.at_level("INFO"):
        assert len(list(loader.batches(order))) == 5
        assert len(list(loader.batches(order))) == 5
    assert [record.message for record in caplog.records] == [
        "Reading ahead up to 3 batches of 0.00 MB with 2 threads (max_ram_gb: 2.5e-07)."
    ]


def test_no_more_is_gathered_than_read_ahead(
    windows: Windows, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered, gather = [], Windows.gather
    monkeypatch.setattr(Windows, "gather", lambda self, *args: gathered.append(args) or gather(self, *args))
    iterator = Loader(windows, num_workers=2, max_ram_gb=250e-9).batches(order)
    next(iterator)
    iterator.close()
    time.sleep(0.05)
    assert 1 <= len(gathered) <= 4, "the one that is taken, and 3 ahead"


@pytest.mark.parametrize(("max_ram_gb", "times"), [(None, 0), (16.0, 0), (1e-5, 1)])
def test_mapped_memory_is_given_back_before_it_is_too_much(
    windows: Windows, order: Order, monkeypatch: pytest.MonkeyPatch, max_ram_gb: float | None, times: int
) -> None:
    mapped, released, gather = [500], [], Windows.gather

    def gather_and_map(self: Windows, indices: np.ndarray, columns: Sequence[str] | None) -> Batch:
        mapped[0] += 1000
        return gather(self, indices, columns)

    def release(_: Windows) -> None:
        released.append(mapped[0])
        mapped[0] = 700

    monkeypatch.setattr(batches, "mapped_memory", lambda: mapped[0])
    monkeypatch.setattr(Windows, "gather", gather_and_map)
    monkeypatch.setattr(Windows, "release", release)
    assert len(list(Loader(windows, max_ram_gb=max_ram_gb).batches(order))) == 5
    assert released == [3500][:times]


def test_the_kernel_is_told_how_mapped_files_are_read(
    windows: Windows, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(Windows, "expect", lambda _, *, scattered: told.append(scattered))
    next(Loader(windows).batches(order))
    next(Loader(windows).batches(Order(len(windows), 5, shuffle=False)))
    assert told == [True, False]


def test_a_process_knows_what_it_has_mapped() -> None:
    assert (batches.mapped_memory() > 0) == Path("/proc/self/statm").exists()
