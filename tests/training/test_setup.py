"""What of a run's data is kept on the device."""

import pytest

from seqjax.training.feed import ResidentFeed, StreamedFeed
from tests.populations import config, solo

SIZE = 60 * (1 + 4) + 21 * (4 + 4)
"""Bytes of either split: 60 rows of two columns, and where its 21 windows begin and how long they are."""


@pytest.mark.parametrize(
    ("splits_that_fit", "kinds"),
    [(0.9, [StreamedFeed] * 2), (1.9, [ResidentFeed, StreamedFeed]), (2.0, [ResidentFeed] * 2)],
)
def test_training_and_validation_data_share_the_memory(splits_that_fit, kinds):
    limit = splits_that_fit * SIZE / 1e9
    run, _ = solo(config({"load_full_data_to_ram": False, "max_ram_gb": limit}))
    assert [type(feed) for feed in (run.training, run.validation)] == kinds
