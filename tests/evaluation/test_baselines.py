"""Baselines predict the same on arrays of numpy and on the device."""

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.baselines import fit_baselines, predict_baseline, predict_targets
from seqjax.config.schema import Schema
from tests.batches import batch_of
from tests.training.conftest import make_windows

SCHEMA = Schema(
    n_classes={"item": 5},
    categorical_inputs=("item",),
    real_inputs=("value",),
    targets={"item": "categorical", "value": "real"},
    seq_length=6,
)


def test_both_forms_say_the_same() -> None:
    rng = np.random.default_rng(0)
    columns = {
        "item": rng.integers(1, 5, 60).astype(np.int8),
        "value": rng.normal(size=60).astype(np.float32),
    }
    windows = make_windows(columns, 6, starts=rng.integers(0, 50, 20), lengths=rng.integers(1, 8, 20))
    host = windows.gather(np.arange(20))
    batch = batch_of(jax.tree.map(jnp.asarray, host.columns), jnp.asarray(host.padding))
    known = (np.arange(6) >= host.padding[:, None]).reshape(-1)
    assert not known.all()
    last = {name: values[:, :-1].reshape(-1) for name, values in host.columns.items()}
    fitted = fit_baselines(windows, SCHEMA)
    assert list(fitted) == ["last value", "marginal", "first-order Markov"]
    for parameters in fitted.values():
        expected = predict_targets(jax.tree.map(jnp.asarray, parameters), batch)
        log_probs = predict_baseline(parameters["item"], last["item"], known)
        np.testing.assert_allclose(log_probs, np.asarray(expected["item"]).reshape(-1, 5), rtol=2e-5)
        values = predict_baseline(parameters["value"], last["value"], known)[:, 0]
        np.testing.assert_allclose(values, np.asarray(expected["value"]).reshape(-1), rtol=2e-5, atol=1e-6)
