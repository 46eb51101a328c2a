"""Order, padding, and restoring at every state, for both iterators."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import loader
from seqjax.data.dataset import Batch, Windows
from seqjax.data.loader import (
    BATCHES_AHEAD,
    BatchIterator,
    Loader,
    PlainIterator,
    batches_ahead,
    epoch_order,
)


@pytest.fixture
def windows() -> Windows:
    n = 23
    return Windows(
        columns={"item": np.arange(2, n + 4, dtype=np.int16)},
        start=np.arange(n),
        length=np.full(n, 3, np.int32),
        sequence_id=np.arange(n),
        subsequence_id=np.zeros(n, np.int64),
        start_item_position=np.zeros(n, np.int64),
        item_position=None,
        seq_length=2,
    )


@pytest.fixture(params=["grain", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "grain", None)
    return request.param


def _same(one: Batch, other: Batch) -> bool:
    return np.array_equal(one.padding, other.padding) and all(
        np.array_equal(one.columns[name], other.columns[name]) for name in one.columns
    )


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32), st.booleans())
def test_an_epoch_holds_every_window_once(n: int, batch_size: int, seed: int, shuffle: bool) -> None:
    order = epoch_order(n, batch_size, seed=seed, epoch=3, shuffle=shuffle)
    assert order.shape == (-(-n // batch_size), batch_size)
    assert sorted(order[order >= 0].tolist()) == list(range(n))
    assert (order.reshape(-1)[n:] == -1).all()
    if not shuffle:
        assert order.reshape(-1)[:n].tolist() == list(range(n))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(50, 8, seed=seed, epoch=epoch, shuffle=True).reshape(-1).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.fixture
def order(windows: Windows) -> np.ndarray:
    """Two epochs in batches of 5, the last batch of each padded."""
    n = len(windows)
    return np.concatenate([epoch_order(n, 5, seed=7, epoch=epoch, shuffle=True) for epoch in range(2)])


def test_kinds_are_what_they_say(windows: Windows, order: np.ndarray, kind: str) -> None:
    iterator = Loader(windows).batches(order)
    assert isinstance(iterator, PlainIterator) == (kind == "plain")


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_are_those_of_the_order(
    windows: Windows, order: np.ndarray, kind: str, num_workers: int
) -> None:
    del kind
    seen = list(Loader(windows, ("item",), num_workers=num_workers).batches(order))
    assert len(seen) == 10
    for batch, indices in zip(seen, order, strict=True):
        assert _same(batch, windows.gather(indices, ("item",)))
    for epoch in (seen[:5], seen[5:]):
        assert epoch[-1].padding.tolist() == [0, 0, 0, 3, 3]
        first_items = np.concatenate([batch.columns["item"][:, 0] for batch in epoch])
        assert sorted(first_items[:23].tolist()) == list(range(2, 25))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_restoring_at_every_state_gives_the_rest(
    windows: Windows, order: np.ndarray, kind: str, num_workers: int
) -> None:
    del kind

    def begun() -> BatchIterator:
        return Loader(windows, num_workers=num_workers).batches(order)

    iterator = begun()
    states, expected = [iterator.get_state()], []
    for batch in iterator:
        expected.append(batch)
        states.append(iterator.get_state())
    assert [state["next_index"] for state in states] == list(range(11))
    for done, state in enumerate(states):
        fresh, used = begun(), begun()
        next(used)
        for restored in (fresh, used):
            restored.set_state(state)
            rest = list(restored)
            assert len(rest) == 10 - done
            assert all(_same(one, other) for one, other in zip(rest, expected[done:], strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_part_of_an_order_has_the_states_of_the_whole(
    windows: Windows, order: np.ndarray, kind: str, num_workers: int
) -> None:
    del kind
    whole = list(Loader(windows).batches(order))
    part = Loader(windows, num_workers=num_workers).batches(order, 3, 7)
    assert part.get_state() == {"next_index": 3}
    seen = list(part)
    assert part.get_state() == {"next_index": 7}
    assert len(seen) == 4
    assert all(_same(one, other) for one, other in zip(seen, whole[3:7], strict=True))
    part.close()


@pytest.mark.usefixtures("kind")
def test_a_state_beyond_the_order_is_refused(windows: Windows, order: np.ndarray) -> None:
    with pytest.raises(IndexError):
        Loader(windows).batches(order).set_state({"next_index": 11})


@pytest.mark.usefixtures("kind")
def test_rows_are_copied_into_memory_when_they_are_needed(windows: Windows, order: np.ndarray) -> None:
    mapped = np.asarray(windows.columns["item"])[:]
    rows = dataclasses.replace(windows, columns={"item": mapped, "other": mapped})
    loader = Loader(rows, ("item",), in_ram=True)
    expected = list(Loader(windows, ("item",)).batches(order))
    seen = list(loader.batches(order))
    assert all(_same(one, other) for one, other in zip(seen, expected, strict=True))
    mapped[:] = 0
    assert all(_same(one, other) for one, other in zip(loader.batches(order), expected, strict=True))


def test_memory_bounds_what_is_read_ahead(
    windows: Windows, order: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    assert batches_ahead(1000, 2, None) == 2 * BATCHES_AHEAD
    assert batches_ahead(1000, 2, 5e-6) == 5
    assert batches_ahead(1000, 2, 1e-9) == 1
    loader = Loader(windows, num_workers=2, max_ram_gb=250e-9)
    with caplog.at_level("INFO"):
        assert len(list(loader.batches(order))) == 10
        assert len(list(loader.batches(order))) == 10
    assert [record.message for record in caplog.records] == [
        "Reading ahead up to 3 batches of 0.00 MB with 2 threads (max_ram_gb: 2.5e-07)."
    ]


@pytest.mark.parametrize("kind", ["grain", "plain"], indirect=True)
def test_no_more_is_gathered_than_read_ahead(
    windows: Windows, order: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del kind
    gathered, gather = [], Windows.gather
    monkeypatch.setattr(Windows, "gather", lambda self, *args: gathered.append(args) or gather(self, *args))
    iterator = Loader(windows, num_workers=2, max_ram_gb=250e-9).batches(order)
    next(iterator)
    iterator.close()
    time.sleep(0.05)
    assert 1 <= len(gathered) <= 4, "the one that is taken, and 3 ahead"


@pytest.mark.parametrize(("max_ram_gb", "times"), [(None, 0), (16.0, 0), (1e-5, 3)])
def test_mapped_memory_is_given_back_before_it_is_too_much(
    windows: Windows,
    order: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    max_ram_gb: float | None,
    times: int,
) -> None:
    mapped, released, gather = [500], [], Windows.gather

    def gather_and_map(self: Windows, indices: np.ndarray, columns: Sequence[str] | None) -> Batch:
        mapped[0] += 1000
        return gather(self, indices, columns)

    def release(_: Windows) -> None:
        released.append(mapped[0])
        mapped[0] = 700

    monkeypatch.setattr(loader, "mapped_memory", lambda: mapped[0])
    monkeypatch.setattr(Windows, "gather", gather_and_map)
    monkeypatch.setattr(Windows, "release", release)
    assert len(list(Loader(windows, max_ram_gb=max_ram_gb).batches(order))) == 10
    assert released == [3500, 3700, 3700][:times]


def test_the_kernel_is_told_how_mapped_files_are_read(
    windows: Windows, order: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(Windows, "expect", lambda _, *, scattered: told.append(scattered))
    Loader(windows).batches(order)
    Loader(windows).batches(epoch_order(len(windows), 5, seed=7, epoch=0, shuffle=False))
    assert told == [True, False]


def test_a_process_knows_what_it_has_mapped() -> None:
    assert (loader.mapped_memory() > 0) == Path("/proc/self/statm").exists()
