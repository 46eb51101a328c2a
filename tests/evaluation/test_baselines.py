"""Baselines predict the same on arrays of numpy and of jax, and what their names say, from each item once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.baselines import fit_baselines, past_of, predict_baseline, predict_targets
from seqjax.config.schema import Schema
from seqjax.windows.index import Slices
from seqjax.windows.windows import Windows, cut
from tests.batches import batch_of
from tests.engines import windows_of
from tests.training.conftest import make_windows

LENGTH, CLASSES = 6, 5
SCHEMA = Schema(
    n_classes={"item": CLASSES},
    categorical_inputs=("item",),
    real_inputs=("value",),
    targets={"item": "categorical", "value": "real"},
    seq_length=LENGTH,
)
REALS = ["last value", "marginal", "first-order Markov", "velocity", "seasonal last value", "drift"]
CLASSES_OF = ["last value", "marginal", "first-order Markov", "second-order Markov"]


def columns(rows: int, seed: int, missing: float = 0.0) -> dict:
    rng = np.random.default_rng(seed)
    gaps = rng.random((2, rows)) < missing
    return {
        "item": np.where(gaps[0], 0, rng.integers(1, CLASSES, rows)).astype(np.int8),
        "value": np.where(gaps[1], np.nan, rng.normal(size=rows)).astype(np.float32),
    }


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_both_forms_say_the_same(missing: float) -> None:
    rng = np.random.default_rng(0)
    windows = make_windows(
        columns(60, 0, missing), LENGTH, starts=rng.integers(0, 50, 20), lengths=rng.integers(1, 8, 20)
    )
    host = windows.gather(np.arange(20))
    batch = batch_of(jax.tree.map(jnp.asarray, dict(host.columns)), jnp.asarray(host.padding))
    fitted = fit_baselines(windows, SCHEMA)
    assert {name: list(rows) for name, rows in fitted.items()} == {"item": CLASSES_OF, "value": REALS}
    expected = predict_targets(fitted, host)
    for target, rows in jax.jit(predict_targets)(fitted, batch).items():
        for name, outputs in rows.items():
            np.testing.assert_allclose(outputs, expected[target][name], rtol=2e-5, atol=2e-6)
            newest = predict_baseline(name, fitted[target][name], past_of(host, target, 2))
            np.testing.assert_array_equal(newest, expected[target][name][:, -2:])


def past_values(window: np.ndarray, slot: int) -> list[tuple[int, float]]:
    """Slots and values before a slot, the newest first, as far as there are values."""
    return [(at, float(window[at])) for at in range(slot - 1, -1, -1) if not math.isnan(window[at])]


def said_by_hand(name: str, window: np.ndarray, slot: int, mean: float, period: int) -> float:
    """A baseline of a real target, in words turned into a loop."""
    before = past_values(window, slot)
    if name == "marginal" or not before:
        return mean
    (newest, last), (second, earlier) = before[0], before[1] if len(before) > 1 else before[0]
    first, oldest = before[-1]
    if name == "velocity" and second < newest:
        return last + (last - earlier) / (newest - second) * (slot - newest)
    if name == "drift" and first < newest:
        return last + (last - oldest) / (newest - first) * (slot - newest)
    if name == "seasonal last value" and slot >= period and not math.isnan(window[slot - period]):
        return float(window[slot - period])
    return last


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 10_000), st.sampled_from([0.0, 0.3])
)
def test_real_baselines_are_what_their_names_say(lengths: list[int], seed: int, missing: float) -> None:
    rows = columns(sum(lengths), seed, missing)
    windows = sequences_of(rows, lengths, stride=2)
    fitted = fit_baselines(windows, SCHEMA)["value"]
    values = rows["value"].astype(np.float64)
    mean = np.nanmean(values) if np.isfinite(values).any() else 0.0
    period = int(fitted["seasonal last value"]["period"])
    batch = windows.gather(np.arange(len(windows)))
    for name in set(REALS) - {"first-order Markov"}:
        found = predict_targets({"value": {name: fitted[name]}}, batch)["value"][name][..., 0]
        for row, padding in enumerate(batch.padding.tolist()):
            window = np.where(np.arange(LENGTH + 1) < padding, np.nan, batch.columns["value"][row])
            for slot in range(1, LENGTH + 1):
                expected = said_by_hand(name, window.astype(np.float64), slot, mean, period)
                assert found[row, slot - 1] == pytest.approx(expected, rel=1e-5, abs=1e-5), (name, slot)


def sequences_of(rows: dict, lengths: list[int], *, stride: int) -> Windows:
    """Windows over sequences of so many rows each, as seqjax's own format has them."""
    length = np.asarray(lengths, np.int64)
    start = np.cumsum(length) - length
    slices = Slices(np.arange(len(length)), start, length)
    position = np.concatenate([np.arange(count) for count in lengths])
    return cut(slices, rows, position, seq_length=LENGTH, stride=stride)


def listed_sequences(rows: dict, lengths: list[int]) -> Windows:
    """The same, window by window, with all rows of each, as foreign formats have them."""
    ends = np.cumsum(lengths).tolist()
    own = {
        number: {name: values[end - count : end].tolist() for name, values in rows.items()}
        for number, (end, count) in enumerate(zip(ends, lengths, strict=True))
    }
    positions = {number: list(range(count)) for number, count in enumerate(lengths)}
    return windows_of(own, positions, seq_length=LENGTH)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=5), st.integers(0, 10_000), st.integers(1, 7))
def test_each_item_counts_once_whatever_windows_there_are(lengths: list[int], seed: int, stride: int) -> None:
    rows = columns(sum(lengths), seed)
    expected = fit_baselines(sequences_of(rows, lengths, stride=1), SCHEMA)
    share = np.bincount(rows["item"], minlength=CLASSES) + 1
    np.testing.assert_allclose(np.exp(expected["item"]["marginal"]["marginal"]), share / share.sum())
    np.testing.assert_allclose(
        expected["value"]["marginal"]["marginal"][0],
        rows["value"].mean(dtype=np.float64),
        rtol=1e-6,
        atol=1e-7,
    )
    others = [sequences_of(rows, lengths, stride=stride), sequences_of(rows, lengths, stride=9)]
    for windows in [*others, listed_sequences(rows, lengths)]:
        for target, fitted in fit_baselines(windows, SCHEMA).items():
            for name, parameters in fitted.items():
                for key, array in parameters.items():
                    np.testing.assert_allclose(
                        array, expected[target][name][key], rtol=1e-6, atol=1e-9, err_msg=f"{name} {key}"
                    )


def test_the_second_order_finds_what_the_first_cannot() -> None:
    """a, b, a, c, ...: after an a comes what did not come before it."""
    items = np.tile([2, 3, 2, 4], 200).astype(np.int8)
    rows = {"item": items, "value": np.zeros(len(items), np.float32)}
    windows = sequences_of(rows, [len(items)], stride=1)
    fitted = fit_baselines(windows, SCHEMA)["item"]
    batch = windows.gather(np.arange(len(windows)))
    past, truth = past_of(batch, "item", 1), batch.columns["item"][:, -1:, None]
    nll = {
        name: -np.take_along_axis(predict_baseline(name, parameters, past), truth, axis=-1).mean()
        for name, parameters in fitted.items()
    }
    assert nll["second-order Markov"] < 0.01 < 0.3 < nll["first-order Markov"]


def test_contexts_that_training_lacks_are_told_by_the_last_class() -> None:
    rows = {"item": np.asarray([2, 3, 2, 3, 2, 3, 4, 2], np.int8), "value": np.zeros(8, np.float32)}
    fitted = fit_baselines(sequences_of(rows, [8], stride=1), SCHEMA)["item"]
    new = {"item": np.asarray([4, 3, 3], np.int8), "value": np.zeros(3, np.float32)}
    batch = sequences_of(new, [3], stride=1).gather(np.arange(1))
    found = predict_targets({"item": fitted}, batch)["item"]
    np.testing.assert_allclose(found["second-order Markov"][0, -1], found["first-order Markov"][0, -1])


@pytest.mark.parametrize(("period", "longest"), [(3, LENGTH), (5, LENGTH), (12, 48), (24, 48)])
def test_the_period_is_found(period: int, longest: int) -> None:
    rng = np.random.default_rng(period)
    values = rng.normal(size=period)[np.arange(2000) % period] + 0.1 * rng.normal(size=2000)
    rows = {"value": values.astype(np.float32)}
    schema = SCHEMA.model_copy(update={"targets": {"value": "real"}, "seq_length": longest})
    slices = Slices(np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, 2000))
    windows = cut(slices, rows, np.arange(2000), seq_length=longest, stride=1)
    assert fit_baselines(windows, schema)["value"]["seasonal last value"]["period"] == period
    for periods in (4, {"value": 4}):
        assert fit_baselines(windows, schema, periods)["value"]["seasonal last value"]["period"] == 4
    assert "seasonal last value" not in fit_baselines(windows, schema, longest + 1)["value"]


@pytest.mark.parametrize(("length", "names"), [(1, REALS[:3]), (2, REALS[:5]), (3, REALS)])
def test_short_windows_have_no_room_for_some(length: int, names: list[str]) -> None:
    schema = SCHEMA.model_copy(update={"targets": {"value": "real"}, "seq_length": length})
    windows = make_windows({"value": np.arange(20, dtype=np.float32)}, length)
    assert list(fit_baselines(windows, schema)["value"]) == names
