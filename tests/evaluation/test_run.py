"""A model with known outputs over known windows: every figure against a plain loop over items."""

import math

import numpy as np
import pytest

from seqjax.baselines import fit_baselines
from seqjax.config.base import validate
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.metadata import Statistics
from seqjax.errors import ArtifactError
from seqjax.evaluation.pieces import ENOUGH_SEQUENCES, Estimate
from seqjax.evaluation.run import ModelScores, run_model
from seqjax.windows.windows import Windows, taken
from tests.engines import FakeEngine, fake_card, windows_of

ITEMS = {"apple": 2, "fig": 3, "kiwi": 4}
PRICE = Statistics(mean=100.0, std=10.0)
LENGTH, CLASSES = 3, 5


def sequences(count, seed, *, rows=12):
    rng = np.random.default_rng(seed)
    return {
        number: {
            "item": rng.integers(0, CLASSES, length).tolist(),
            "price": rng.normal(size=length).astype(np.float32).tolist(),
        }
        for number, length in enumerate(rng.integers(1, rows, count))
    }


def windows(count=30, seed=0, **options) -> Windows:
    rows = sequences(count, seed, **options)
    positions = {number: list(range(len(columns["item"]))) for number, columns in rows.items()}
    return windows_of(rows, positions, seq_length=LENGTH)


def outputs(inputs, valid_mask, positions):
    """Class 2 + (newest id mod 3) with probability 0.6, the newest price times 0.9."""
    shown = slice(LENGTH - positions, None)
    ids = inputs["item"][:, shown]
    probs = np.where(np.arange(CLASSES) == 2 + ids[..., None] % 3, 0.6, 0.1)
    return {"item": np.log(probs), "price": 0.9 * inputs["price"][:, shown, None]}


def config(**changes) -> EvaluateConfig:
    values = {"project_root": ".", "model_path": "m", "inference_batch_size": 7, "bootstrap_samples": 100}
    return validate(EvaluateConfig, {**values, **changes}, "evaluate.yaml")


def engine(positions=1, compute=outputs) -> FakeEngine:
    card = fake_card(
        {"item": ITEMS},
        {"price": PRICE},
        {"item": "categorical", "price": "real"},
        seq_length=LENGTH,
        prediction_length=positions,
    )
    return FakeEngine(card, lambda inputs, valid: compute(inputs, valid, positions))


def run(data: Windows | None = None, *, positions=1, **changes) -> ModelScores:
    data = windows() if data is None else data
    model = engine(positions)
    fitted = fit_baselines(windows(seed=9), model.card.column_schema)
    half = len(data) // 2
    cut = int(np.flatnonzero(data.sequence_id() == data.sequence_id()[half])[0])
    parts = [taken(data, np.arange(cut)), taken(data, np.arange(cut, len(data)))] if cut else [data]
    return run_model(model, parts, fitted, config(**changes), name="m", total=len(data))


def items(data: Windows, positions: int):
    """(window, place, last, truth) of every item that a prediction window holds, slot by slot."""
    for window in range(len(data)):
        batch = data.gather(np.array([window]))
        for place in range(positions):
            slot = LENGTH + 1 - positions + place
            if slot >= batch.padding[0]:
                yield (
                    window,
                    place,
                    {name: values[0, slot - 1] for name, values in batch.columns.items()},
                    {name: values[0, slot] for name, values in batch.columns.items()},
                )


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("score_reserved", [False, True])
def test_figures_are_those_of_a_plain_loop(positions, score_reserved):
    data = windows()
    found = run(data, positions=positions, score_reserved=score_reserved)
    nll, right, errors, prices, places = [], [], [], [], []
    for _, place, last, truth in items(data, positions):
        errors.append(10 * (0.9 * float(last["price"]) - float(truth["price"])))
        prices.append(10 * float(truth["price"]))
        if truth["item"] >= 2 or score_reserved:
            likely = 2 + last["item"] % 3
            nll.append(-math.log(0.6 if truth["item"] == likely else 0.1))
            right.append(truth["item"] == likely)
            places.append(place)
    item, price = found.targets["item"], found.targets["price"]
    figures = {name: estimate.value for name, estimate in item.metrics["model"].items()}
    assert (item.items, price.items) == (len(nll), len(errors))
    assert figures["nll"] == pytest.approx(np.mean(nll))
    assert figures["top_1_accuracy"] == pytest.approx(np.mean(right))
    assert figures["confidence"] == pytest.approx(0.6)
    assert figures["entropy"] == pytest.approx(-(0.6 * math.log(0.6) + 4 * 0.1 * math.log(0.1)))
    figures = {name: estimate.value for name, estimate in price.metrics["model"].items()}
    assert figures["mae"] == pytest.approx(np.abs(errors).mean())
    assert figures["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()))
    assert figures["bias"] == pytest.approx(np.mean(errors))
    assert figures["r2"] == pytest.approx(1 - np.square(errors).mean() / np.var(prices))
    assert item.calibration is not None
    assert item.calibration.ece["model"] == pytest.approx(abs(0.6 - np.mean(right)))
    assert len(item.positions) == (positions if positions > 1 else 0)
    for position in item.positions:
        here = [value for value, place in zip(nll, places, strict=True) if place == position.position - 1]
        assert position.items == len(here)
        assert position.items_seen == LENGTH - positions + position.position
        assert position.metrics["model"]["nll"] == pytest.approx(np.mean(here))


def test_what_is_not_scored_is_counted():
    data = windows()
    found = run(data, positions=2)
    truths = [truth["item"] for *_, truth in items(data, 2)]
    padding = 2 * len(data) - len(truths)
    assert padding > 0
    left_out = {"padding": padding, "without_history": 0, "missing": 0}
    expected = left_out | {"missing": truths.count(0), "other": truths.count(1)}
    assert found.targets["item"].not_scored == expected
    assert found.targets["price"].not_scored == left_out
    assert run(data, positions=2, score_reserved=True).targets["item"].not_scored == {**left_out, "other": 0}


def test_baselines_are_scored_on_the_same_items():
    data = windows()
    found = run(data)
    last_value = [10 * float(last["price"] - truth["price"]) for _, _, last, truth in items(data, 1) if True]
    known = data.length() >= 2
    assert known.sum() < len(data)
    price = found.targets["price"].metrics
    assert list(price) == [
        *("model", "last value", "marginal", "first-order Markov"),
        *("velocity", "seasonal last value", "drift"),
    ]
    mean = np.mean([price for columns in sequences(30, 9).values() for price in columns["price"]])
    first = [10 * float(mean - truth["price"]) for _, _, _, truth in items(data, 1)]
    errors = np.where(known, last_value, first)
    assert price["last value"]["mae"].value == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert price["marginal"]["mae"].value == pytest.approx(np.abs(first).mean(), rel=1e-5)


def test_the_batch_size_changes_nothing():
    data = windows()
    one, other = run(data, inference_batch_size=1), run(data, inference_batch_size=500)
    assert one.examples == other.examples
    for name, target in one.targets.items():
        for predictor, metrics in target.metrics.items():
            for metric, estimate in metrics.items():
                same = other.targets[name].metrics[predictor][metric]
                assert (estimate.value, estimate.low) == pytest.approx((same.value, same.low))


def test_windows_and_sequences_are_counted():
    data = windows()
    found = run(data)
    assert (found.windows, found.sequences) == (len(data), 30)
    assert found.resampled == "sequences"
    assert found.targets["price"].pieces == 30
    assert found.sums["price"].shape == (30, 6)
    assert found.sums["price"][:, 0].tolist() == np.unique(data.sequence_id(), return_counts=True)[1].tolist()


def test_few_long_sequences_are_resampled_in_blocks():
    data = windows(count=ENOUGH_SEQUENCES - 1, rows=40)
    found = run(data)
    assert found.resampled.startswith("blocks of ")
    assert found.targets["price"].pieces > 19


def test_little_data_has_figures_but_no_intervals():
    found = run(windows(count=2, rows=6))
    target = found.targets["price"]
    assert target.metrics["model"]["rmse"].value is not None
    assert target.metrics["model"]["rmse"].low is None
    assert target.verdict.outcome == "not judged"


def test_nothing_to_score():
    data = windows_of({0: {"item": [0, 1, 0, 1], "price": [0.0] * 4}}, {0: [0, 1, 2, 3]}, seq_length=LENGTH)
    target = run(data).targets["item"]
    assert (target.items, target.pieces, target.verdict.outcome) == (0, 0, "not judged")
    assert target.metrics["model"]["nll"].value is None
    assert target.confusion is not None
    assert list(target.confusion.labels) == []


def test_only_the_targets_asked_for():
    assert list(run(target_columns=["price"]).targets) == ["price"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_returns_no_numbers_is_refused(value):
    def broken(inputs, valid_mask, positions):
        return {**outputs(inputs, valid_mask, positions), "price": np.full((len(valid_mask), 1, 1), value)}

    with pytest.raises(ArtifactError, match="output for 'price' is not finite everywhere"):
        run_model(engine(compute=broken), [windows()], {}, config(), name="m", total=None)


def test_a_class_may_be_impossible_but_if_it_comes_nothing_is_judged():
    def certain(inputs, valid_mask, positions):
        found = outputs(inputs, valid_mask, positions)
        found["item"][..., 4] = -np.inf
        return found

    fitted = fit_baselines(windows(seed=9), engine().card.column_schema)
    target = run_model(engine(compute=certain), [windows()], fitted, config(), name="m", total=None).targets[
        "item"
    ]
    assert target.metrics["model"]["nll"] == Estimate(None)
    assert target.metrics["model"]["top_1_accuracy"].low is not None
    assert target.verdict.text == "Not judged: the NLL is not finite."


def chain(seed, count=60, length=30):
    """Sequences of a Markov chain of third order: baselines see only the last two items."""
    rng = np.random.default_rng(seed)
    rows = {}
    for number in range(count):
        ids = [2, 3, 2]
        for _ in range(length):
            ids.append(2 + (ids[-1] + ids[-3]) % 3 if rng.random() < 0.8 else int(rng.integers(2, 5)))
        rows[number] = {"item": ids, "price": rng.normal(size=len(ids)).astype(np.float32).tolist()}
    return windows_of(rows, {number: list(range(length + 3)) for number in rows}, seq_length=LENGTH)


def rule(inputs, valid_mask, positions):
    """The law of `chain` itself; of the price, the mean."""
    likely = 2 + (inputs["item"][:, -1] + inputs["item"][:, -3]) % 3
    probs = np.full((len(likely), 1, CLASSES), 1e-9)
    probs[:, 0, 2:] = 0.2 / 3
    probs[np.arange(len(likely)), 0, likely] += 0.8
    return {"item": np.log(probs), "price": np.zeros((len(likely), 1, 1))}


def noise(inputs, valid_mask, positions):
    rng = np.random.default_rng(len(valid_mask))
    probs = rng.dirichlet(np.ones(CLASSES), (len(valid_mask), 1))
    return {"item": np.log(probs), "price": rng.normal(size=(len(valid_mask), 1, 1))}


def verdicts(compute):
    model = engine(compute=compute)
    fitted = fit_baselines(chain(seed=1), model.card.column_schema)
    return run_model(model, [chain(seed=2)], fitted, config(), name="m", total=None).targets


def test_a_model_that_knows_the_law_is_better():
    found = verdicts(rule)
    assert found["item"].verdict.outcome == "better"
    assert found["price"].verdict.outcome == "no better"  # There is nothing to know about it.
    likely, other = 0.8 + 0.2 / 3, 0.2 / 3
    entropy = -likely * math.log(likely) - 2 * other * math.log(other)
    assert found["item"].metrics["model"]["nll"].value == pytest.approx(entropy, abs=0.05)
    assert found["item"].metrics["marginal"]["nll"].value == pytest.approx(math.log(3), abs=0.02)


def test_noise_is_worse():
    found = verdicts(noise)
    assert [target.verdict.outcome for target in found.values()] == ["worse", "worse"]


def test_a_model_that_is_a_baseline_is_no_better():
    fitted = fit_baselines(chain(seed=1), engine().card.column_schema)
    marginal = {name: rows["marginal"] for name, rows in fitted.items()}

    def all_alike(inputs, valid_mask, positions):
        count = len(valid_mask)
        return {name: np.tile(row["marginal"], (count, 1, 1)) for name, row in marginal.items()}

    for target in verdicts(all_alike).values():
        assert target.verdict.outcome in {"no better", "worse"}
        for metric, found in target.metrics["model"].items():
            same = target.metrics["marginal"][metric]
            assert (found.value, found.low) == pytest.approx((same.value, same.low), rel=1e-5, abs=1e-6)
