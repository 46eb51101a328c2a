"""The encoders of the three kinds of column."""

import jax.numpy as jnp
import numpy as np

from seqjax.model.layers import DirectEncoder, RealEncoder, Table, make_encoder

RNG = np.random.default_rng(0)


def test_categorical_columns_look_up_their_ids() -> None:
    encoder = make_encoder(5, 3, rng=RNG)
    assert isinstance(encoder, Table)
    found = encoder(jnp.asarray([[4, 0]]))
    np.testing.assert_array_equal(found[0], encoder.weight[...][jnp.asarray([4, 0])])


def test_ids_beyond_the_table_are_not_taken_for_others() -> None:
    assert np.isnan(make_encoder(5, 3, rng=RNG)(jnp.asarray([[5]]))).all()


def test_real_columns_are_mapped_linearly() -> None:
    encoder = make_encoder(None, 3, rng=RNG)
    assert isinstance(encoder, RealEncoder)
    values = np.asarray([[0.5, -2.0]], np.float32)
    expected = values[..., None] * np.asarray(encoder.weight[...])[:, 0] + np.asarray(encoder.bias[...])
    np.testing.assert_allclose(encoder(jnp.asarray(values)), expected, rtol=1e-6)


def test_real_columns_of_width_one_stand_for_themselves() -> None:
    encoder = make_encoder(None, 1, rng=RNG)
    assert isinstance(encoder, DirectEncoder)
    np.testing.assert_array_equal(encoder(jnp.asarray([[0.5, -2.0]])), [[[0.5], [-2.0]]])
