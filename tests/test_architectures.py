"""The covering array covers what it says."""

import numpy as np

from tests.architectures import architectures, random_batch, uncovered_pairs


def test_every_pair_of_choices_occurs() -> None:
    assert uncovered_pairs() == set()


def test_every_architecture_has_its_own_name() -> None:
    names = [architecture.id for architecture in architectures()]
    assert len(set(names)) == len(names) == 16


def test_batches_are_left_padded_with_zeros() -> None:
    for architecture in architectures():
        batch = random_batch(architecture, 4, seed=1)
        assert batch.valid_mask[0].all()
        assert batch.valid_mask[-1].sum() == 1
        assert (np.diff(batch.valid_mask.astype(int), axis=1) >= 0).all()
        assert list(batch.inputs) == list(architecture.schema.inputs)
        assert list(batch.targets) == list(architecture.schema.targets)
        for values in [*batch.inputs.values(), *batch.targets.values()]:
            assert not values[~batch.valid_mask].any()
