"""The order of an epoch: every window once, found by the batch's number, arranged for updates and devices."""

import math

import numpy as np
import pytest
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


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 10**6), st.integers(1, 300), st.integers(0, 2**63 - 1), st.data())
def test_any_batch_is_found_by_its_number(n: int, size: int, seed: int, data: st.DataObject) -> None:
    order = Order(n, size, seed=seed, epoch=7)
    begin = data.draw(st.integers(0, len(order) - 1))
    end = data.draw(st.integers(begin, min(begin + 3, len(order))))
    some = order.batches(begin, end)
    assert order.samples(begin, end) == (some >= 0).sum()
    for number in range(begin, end):
        assert order.batch(number).tolist() == some[number - begin].tolist()


@pytest.mark.parametrize("n", [10**6, 2**31 - 1, 2**31, 2**40])
def test_an_order_of_any_length_takes_no_memory(n: int) -> None:
    order = Order(n, 128, seed=3)
    end = len(order)
    some = np.concatenate([order.batches(0, 64), order.batches(end - 64)]).ravel()
    some = some[some >= 0]
    assert len(np.unique(some)) == len(some)
    assert len(some) == order.samples(0, 64) + order.samples(end - 64, end)
    assert some.max() < n
    assert some.mean() == pytest.approx(n / 2, rel=0.05)
    assert order.keys is not None
    assert order.keys.nbytes < 1000


def _deviation(counts: np.ndarray, freedom: int | None = None) -> float:
    """Pearson's statistic of counts that should be equal, in standard deviations from its mean."""
    freedom = counts.size - 1 if freedom is None else freedom
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return float((statistic - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 64, 100])
def test_short_orders_are_uniform(n: int) -> None:
    """Each window comes at each place equally often, each pair side by side, and all permutations occur."""
    orders = np.array([Order(n, n, seed=seed).batch(0) for seed in range(4000)])
    places = np.array([np.bincount(orders[:, place], minlength=n) for place in range(n)])
    assert abs(_deviation(places, (n - 1) ** 2)) < 4
    if n > 2:
        pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
        assert abs(_deviation(pairs[~np.eye(n, dtype=bool)])) < 4
    if n <= 5:
        codes = np.bincount(np.unique(orders, axis=0, return_inverse=True)[1].ravel())
        assert len(codes) == math.factorial(n)
        assert n < 3 or abs(_deviation(codes)) < 4


@pytest.mark.parametrize("n", [1000, 10_007, 10**6])
def test_long_orders_mix_well(n: int) -> None:
    """Blocks of an order hold windows of all blocks, and neighbours are no nearer than any two windows."""
    order = Order(n, n, seed=1, epoch=2).batch(0)
    blocks = 16
    mixed = np.bincount(np.arange(n) * blocks // n * blocks + order * blocks // n)
    assert abs(_deviation(mixed, (blocks - 1) ** 2)) < 4
    steps = np.diff(order) % n
    assert abs(_deviation(np.bincount(steps * 64 // n, minlength=64))) < 4
    assert ((steps <= 5) | (steps >= n - 5)).sum() < 30, "about 10 at random"
    assert (order == np.arange(n)).sum() < 8
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) * np.sqrt(n) < 4
    other = Order(n, n, seed=1, epoch=3).batch(0)
    assert abs(np.corrcoef(order, other)[0, 1]) * np.sqrt(n) < 4
