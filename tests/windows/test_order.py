"""The order of an epoch: every window once, found by the batch's number, arranged for updates and devices."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.windows.order import Grouping, Order, Updates


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32), st.booleans())
def test_an_epoch_holds_every_window_once(n: int, batch_size: int, seed: int, shuffle: bool) -> None:
    order = Order(n, batch_size, seed=seed, epoch=3, shuffle=shuffle)
    batches = order.batches()
    assert batches.shape == (-(-n // batch_size), batch_size) == (len(order), batch_size)
    assert sorted(batches[batches >= 0].tolist()) == list(range(n))
    assert (batches.reshape(-1)[n:] == -1).all()
    if not shuffle:
        assert batches.reshape(-1)[:n].tolist() == list(range(n))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return Order(50, 8, seed=seed, epoch=epoch).batches().reshape(-1).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def _updates(n: int, size: int, **grouping: int) -> list[list[int]]:
    return Updates([Order(n, size, shuffle=False)], Grouping(size, **grouping)).batches().tolist()


def test_batches_are_grouped_and_filled_up() -> None:
    assert _updates(10, 2, accumulation=2) == [[0, 2, 1, 3], [4, 6, 5, 7], [8, -1, 9, -1]]
    # Two micro-batches a batch, each shared by two devices.
    assert _updates(6, 6, micro_batches=2, devices=2) == [[0, 4, 1, 5, 2, -1, 3, -1]]


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 12), st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_processes_share_every_batch_without_overlap_or_loss(
    n: int, batch_size: int, devices: list[int]
) -> None:
    order, ends = Order(n, batch_size), np.cumsum(devices).tolist()
    grouping = Grouping(batch_size, devices=ends[-1])
    share = grouping.width // ends[-1]
    parts = [
        Updates([order], grouping, slice((end - own) * share, end * share)).batches()
        for end, own in zip(ends, devices, strict=True)
    ]
    for whole, shared in zip(order.batches(), np.concatenate(parts, axis=1), strict=True):
        assert shared[: len(whole)].tolist() == whole.tolist()
        assert (shared[len(whole) :] == -1).all()
