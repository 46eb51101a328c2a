"""Order, padding, and restoring at every state, for both iterators."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.dataset import Batch, Windows
from seqjax.data.loader import BatchIterator, PlainIterator, batches, epoch_order


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


def test_kinds_are_what_they_say(windows: Windows, kind: str) -> None:
    iterator = batches(windows, batch_size=4, seed=0)
    assert isinstance(iterator, PlainIterator) == (kind == "plain")


def test_epochs_are_reshuffled_and_the_last_batch_is_padded(windows: Windows, kind: str) -> None:
    del kind
    seen = list(batches(windows, batch_size=5, seed=7, epochs=2))
    assert len(seen) == 10
    epochs = [
        np.concatenate([batch.columns["item"][:, 0] for batch in part]) for part in (seen[:5], seen[5:])
    ]
    for part, first_items in zip((seen[:5], seen[5:]), epochs, strict=True):
        assert part[-1].padding.tolist() == [0, 0, 0, 3, 3]
        assert sorted(first_items[:23].tolist()) == list(range(2, 25))
    assert epochs[0].tolist() != epochs[1].tolist()


def _iterator(windows: Windows, num_workers: int = 0) -> BatchIterator:
    return batches(windows, batch_size=5, seed=7, epochs=2, columns=["item"], num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_restoring_at_every_state_gives_the_rest(windows: Windows, kind: str, num_workers: int) -> None:
    del kind
    iterator = _iterator(windows, num_workers)
    states, expected = [iterator.get_state()], []
    for batch in iterator:
        expected.append(batch)
        states.append(iterator.get_state())
    assert [state["next_index"] for state in states] == list(range(11))
    for done, state in enumerate(states):
        restored = _iterator(windows, num_workers)
        restored.set_state(state)
        rest = list(restored)
        assert len(rest) == 10 - done
        assert all(_same(one, other) for one, other in zip(rest, expected[done:], strict=True))
