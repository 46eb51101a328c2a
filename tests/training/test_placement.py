import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data.loader import epoch_order
from seqjax.training.placement import device_columns


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 12), st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_processes_share_every_batch_without_overlap_or_loss(n, batch_size, devices):
    order = epoch_order(n, batch_size, seed=0, epoch=0, shuffle=True)
    ends = np.cumsum(devices).tolist()
    places = [slice(end - own, end) for end, own in zip(ends, devices, strict=True)]
    parts = [device_columns(order, own, ends[-1]) for own in places]
    widths = {part.shape[1] / own for part, own in zip(parts, devices, strict=True)}
    assert len(widths) == 1, "every device takes equally many rows"
    for whole, shared in zip(order, np.concatenate(parts, axis=1), strict=True):
        assert shared[: len(whole)].tolist() == whole.tolist()
        assert (shared[len(whole) :] == -1).all()
