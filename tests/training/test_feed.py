import jax
import numpy as np

from seqjax.training.feed import ResidentFeed, take
from seqjax.windows.windows import inputs_of, target_mask, targets_of, valid_mask

INDICES = np.asarray([0, 5, -1, 20, 3])


def device_batch(case):
    rows = ResidentFeed(case.windows, case.columns)._rows
    return jax.jit(take, static_argnums=2)(rows, jax.numpy.asarray(INDICES), case.windows.seq_length + 1)


def test_windows_are_cut_as_on_the_host(case):
    found, expected = device_batch(case), case.windows.gather(INDICES, case.columns)
    np.testing.assert_array_equal(found.padding, expected.padding)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
        assert found.columns[name].dtype == values.dtype


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
