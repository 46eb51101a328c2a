import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.data.splits import sequences
from seqjax.training import feed as module
from seqjax.training.feed import ResidentFeed, StreamedFeed, gather, locate, rows_of
from seqjax.windows.order import Grouping, Order, Updates
from seqjax.windows.windows import cut, inputs_of, target_mask, targets_of, valid_mask

INDICES = np.asarray([0, 5, -1, 20, 3])


def gathered(rows, indices, slots):
    return jax.jit(lambda rows, indices: gather(rows, locate(rows, indices, slots), slots))(rows, indices)


def device_batch(case):
    rows = ResidentFeed(case.windows, case.columns)._rows
    return gathered(rows, INDICES, case.windows.seq_length + 1)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.padding, expected.padding)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
        assert found.columns[name].dtype == values.dtype


def test_windows_are_cut_as_on_the_host(case):
    assert_same(device_batch(case), case.windows.gather(INDICES, case.columns))


@pytest.mark.parametrize(
    ("lengths", "seq_length", "stride", "shown"),
    [
        ([40, 3, 1, 25], 4, 1, 4),
        ([40, 3, 1, 25], 4, 1, 2),
        ([40, 3, 1, 25], 4, 3, 3),
        ([40], 8, 2, 5),
        ([5, 2], 9, 1, 9),
    ],
)
def test_windows_of_runs_are_cut_as_on_the_host(lengths, seq_length, stride, shown):
    """Listed one by one or found in their runs, and cropped or not."""
    ids = np.repeat(np.arange(len(lengths)), lengths)
    columns = {"item": np.arange(1, len(ids) + 1, dtype=np.int16)}
    windows = cut(sequences(ids), columns, np.arange(len(ids)), seq_length=seq_length, stride=stride)
    windows = windows.crop(shown)
    rows = rows_of(windows, ("item",))
    assert rows.first_window is None or windows.runs.is_even
    indices = np.asarray([*range(len(windows)), -1])
    found = gathered(rows, indices, windows.seq_length + 1)
    assert_same(found, windows.gather(indices))


def test_the_windows_of_a_long_run_take_no_room():
    rows, zeros = np.arange(300_000, dtype=np.int32), np.zeros(300_000, np.int64)
    windows = cut(sequences(zeros), {"item": rows}, np.arange(300_000), seq_length=8, stride=1)
    assert ResidentFeed(windows, ("item",)).nbytes < rows.nbytes + 100


@pytest.mark.parametrize("feed", [ResidentFeed, StreamedFeed])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(("accumulation", "micro_batches"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_the_order_of_a_device_is_that_of_the_host(case, feed, shuffle, members, accumulation, micro_batches):
    seeds = range(members or 1)
    orders = [Order(21, 5, seed=seed, epoch=2, shuffle=shuffle) for seed in seeds]
    windows = dataclasses.replace(case.windows, columns={"row": np.arange(60, dtype=np.int32)})
    source = feed(windows, ("row",))
    updates = Updates(orders, Grouping(5, accumulation, micro_batches))

    def collect(seen, batch, index, constants):
        return seen.at[index].set(batch.columns["row"][:, -1])

    placed = source.place(
        orders if members else orders[0], accumulation=accumulation, micro_batches=micro_batches
    )
    seen = jnp.zeros((len(updates), updates.batch_size), jnp.int32)
    seen = source.fold(collect)(seen, (), placed, 0, len(updates))
    newest = windows.start() + windows.length() - 1
    expected = np.where(updates.batches() < 0, 0, newest[updates.batches()])
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("cuts", [[0, 11], [0, 1, 4, 11], [0, 7, 7, 11]])
def test_windows_that_are_found_ahead_are_those_of_their_updates(case, monkeypatch, cuts):
    """However many are found at once, and wherever a dispatch begins and ends."""
    monkeypatch.setattr(module, "_AHEAD", 3)
    order = Order(21, 2, seed=1)
    source = ResidentFeed(case.windows, case.columns)
    fold = source.fold(lambda seen, batch, index, _: seen.at[index].set(batch.padding))
    seen = jnp.full((11, 2), -1, jnp.int32)
    for begin, end in itertools.pairwise(cuts):
        seen = fold(seen, (), source.place(order), begin, end)
    expected = [case.windows.gather(order.batch(number), ()).padding for number in range(11)]
    np.testing.assert_array_equal(seen, expected)


def test_no_order_is_placed_on_the_device(case):
    placed = case.feed().place(Order(10**8, 128))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(placed)) < 1000


def test_position_t_predicts_slot_t_plus_1(case):
    batch = device_batch(case)
    slots = batch.columns["item"]
    np.testing.assert_array_equal(inputs_of(batch, ("item",))["item"], slots[:, :-1])
    np.testing.assert_array_equal(targets_of(batch, "item"), slots[:, 1:])


def test_masks_follow_the_padding(case):
    batch = device_batch(case)
    real = np.arange(case.windows.seq_length + 1) >= np.asarray(batch.padding)[:, None]
    np.testing.assert_array_equal(valid_mask(batch), real[:, :-1])
    np.testing.assert_array_equal(target_mask(batch), real[:, 1:])
    assert not np.asarray(target_mask(batch))[2].any()
