"""Predictions over windows, and autoregression against a loop that does it the slow way."""

import numpy as np
import pytest

from seqjax.config.metadata import Statistics
from seqjax.config.schema import ColumnKind
from seqjax.inference.forecast import embed, forecast
from seqjax.inference.sample import Reader
from seqjax.windows.windows import taken
from tests.engines import FakeEngine, fake_card, windows_of

UNIT = Statistics(mean=0.0, std=1.0)
ITEMS = {"a": 2, "b": 3, "c": 4}
SEQUENCES = {
    7: {"item": [2, 3, 4, 2, 3, 3], "price": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
    1: {"item": [4, 2], "price": [1.0, -1.0]},
    3: {"item": [2, 2, 3, 4, 4], "price": [0.0, 0.5, -0.5, 0.25, 2.0]},
}
POSITIONS = {7: [0, 1, 2, 3, 10, 11], 1: [5, 6], 3: [0, 2, 4, 6, 8]}
MIXED: dict[str, ColumnKind] = {"price": "real", "item": "categorical"}


def one_hot(ids: np.ndarray, classes: int = 5) -> np.ndarray:
    return np.log(np.where(np.arange(classes) == ids[..., None], 0.8, 0.05))


def arithmetic(inputs, valid_mask):
    """A next item that depends on every real input and on nothing padded."""
    ids = np.where(valid_mask, inputs["item"], 0)
    values = np.where(valid_mask, inputs["price"], 0)
    order = np.arange(1, ids.shape[1] + 1)
    item = (ids @ order + valid_mask.sum(axis=1)) % 5
    price = (values @ (order / 10) + item / 4)[:, None, None]
    return {"item": one_hot(item)[:, None], "price": price}


def mixed_engine() -> FakeEngine:
    return FakeEngine(fake_card({"item": ITEMS}, {"price": UNIT}, MIXED), arithmetic)


def test_every_window_gives_the_next_item_at_its_own_position() -> None:
    windows = windows_of(SEQUENCES, POSITIONS)
    engine = mixed_engine()
    result = forecast(engine, windows, Reader(MIXED), batch_size=4)
    assert engine.batches == [4, 2]
    assert result.sequence_id.tolist() == [7, 7, 7, 1, 3, 3]
    assert result.item_position.tolist() == [3, 10, 11, 6, 6, 8]
    # (2 + 3 * 2 + 4 * 3 + 3) % 5, and so on; sequence 1 shows only its first item, in the last slot.
    assert result.values["item"].tolist() == [3, 0, 0, 3, 3, 3]
    expected = [0.1 * 0.1 + 0.2 * 0.2 + 0.3 * 0.3 + 3 / 4, 0.02 + 0.06 + 0.12 + 0.0]
    np.testing.assert_allclose(result.values["price"][:2], expected, rtol=1e-6)
    assert result.values["price"][3] == pytest.approx(0.3 + 3 / 4)
    assert not result.log_probs


def test_the_item_to_predict_is_not_shown() -> None:
    changed = {7: {"item": [2, 3, 4, 4], "price": [0.1, 0.2, 0.3, 9.0]}}
    plain = {7: {"item": [2, 3, 4, 2], "price": [0.1, 0.2, 0.3, 0.4]}}
    results = [
        forecast(mixed_engine(), windows_of(rows, {7: [0, 1, 2, 3]}), Reader(MIXED), batch_size=2).values
        for rows in (changed, plain)
    ]
    assert results[0]["item"].tolist() == results[1]["item"].tolist()
    assert results[0]["price"].tolist() == results[1]["price"].tolist()


def test_several_positions_of_a_window_are_rows_oldest_first() -> None:
    targets: dict[str, ColumnKind] = {"price": "real"}
    card = fake_card({}, {"price": UNIT}, targets, prediction_length=2)
    engine = FakeEngine(card, lambda inputs, valid_mask: {"price": inputs["price"][:, -2:, None] * 10})
    sequences = {number: {"price": rows["price"]} for number, rows in SEQUENCES.items()}
    result = forecast(engine, windows_of(sequences, POSITIONS, stride=2), Reader(targets), batch_size=3)
    assert result.sequence_id.tolist() == [7, 7, 7, 7, 1, 1, 3, 3]
    assert result.item_position.tolist() == [2, 3, 10, 11, 5, 6, 4, 6]
    np.testing.assert_allclose(result.values["price"], [2, 3, 4, 5, 0, 10, 5, -5])


def test_embeddings_carry_the_position_of_the_item_seen_last() -> None:
    card = fake_card({}, {"price": UNIT}, {"price": "real"}, prediction_length=2).of_kind("embedding")
    engine = FakeEngine(
        card, lambda inputs, valid_mask: {"embedding": np.stack([inputs["price"][:, -2:]] * 4, axis=-1)}
    )
    sequences = {3: {"price": SEQUENCES[3]["price"]}}
    result = embed(engine, windows_of(sequences, POSITIONS), batch_size=8)
    assert result.sequence_id.tolist() == [3, 3, 3, 3]
    assert result.subsequence_id.tolist() == [0, 0, 1, 1]
    assert result.item_position.tolist() == [2, 4, 4, 6]
    assert result.vectors.shape == (4, 4)
    np.testing.assert_allclose(result.vectors[:, 0], [0.5, -0.5, -0.5, 0.25])


def brute_force(sequence: dict[str, list], read: Reader, steps: int) -> list[tuple[float, int]]:
    """The last window of one sequence, continued one window at a time with lists."""
    length = 3
    history = {name: list(values[:-1])[-length:] for name, values in sequence.items()}
    predicted = []
    for _ in range(steps + 1):
        missing = length - len(history["item"][-length:])
        inputs = {
            "item": np.array([[0] * missing + history["item"][-length:]]),
            "price": np.array([[0.0] * missing + history["price"][-length:]], np.float32),
        }
        valid = np.arange(length)[None] >= missing
        outputs = {name: values.astype(np.float32) for name, values in arithmetic(inputs, valid).items()}
        values = read(outputs).values
        for name in history:
            history[name].append(values[name][0, 0].item())
        predicted.append((history["price"][-1], history["item"][-1]))
    return predicted


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_autoregression_equals_a_plain_loop(steps: int) -> None:
    windows = windows_of(SEQUENCES, POSITIONS)
    result = forecast(mixed_engine(), windows, Reader(MIXED), batch_size=2, extra_steps=steps)
    plain = forecast(mixed_engine(), windows, Reader(MIXED), batch_size=2)
    assert len(result.sequence_id) == 6 + 3 * steps
    for sequence, own_windows in ((7, 3), (1, 1), (3, 2)):
        rows = result.sequence_id == sequence
        before = plain.sequence_id == sequence
        assert result.item_position[rows][:own_windows].tolist() == plain.item_position[before].tolist()
        last = plain.item_position[before][-1]
        assert result.item_position[rows][own_windows:].tolist() == [
            last + step for step in range(1, steps + 1)
        ]
        expected = brute_force(SEQUENCES[sequence], Reader(MIXED), steps)
        assert result.values["item"][rows][own_windows - 1 :].tolist() == [item for _, item in expected]
        np.testing.assert_allclose(
            result.values["price"][rows][own_windows - 1 :], [price for price, _ in expected], rtol=1e-5
        )
        assert result.values["item"][rows][:own_windows].tolist() == plain.values["item"][before].tolist()
    # The rows of a sequence stay together, in the order of its windows and then of the steps.
    assert result.sequence_id.tolist() == [7] * (3 + steps) + [1] * (1 + steps) + [3] * (2 + steps)


def test_drawn_values_are_the_ones_that_are_fed_back() -> None:
    def echo(inputs, valid_mask):
        item = inputs["item"][:, -1]
        spread = np.full((len(item), 1, 5), np.log(0.2))
        return {"item": spread, "price": item[:, None, None].astype(float)}

    engine = FakeEngine(fake_card({"item": ITEMS}, {"price": UNIT}, MIXED), echo)
    read = Reader(MIXED, sampled=["item"], seed=1, keep_log_probs=["item"])
    result = forecast(engine, windows_of(SEQUENCES, POSITIONS), read, batch_size=64, extra_steps=20)
    rows = result.sequence_id == 1
    items, prices = result.values["item"][rows], result.values["price"][rows]
    assert len(set(items.tolist())) > 2
    assert prices[1:].tolist() == items[:-1].tolist()
    assert result.log_probs["item"].shape == (6 + 3 * 20, 5)


def test_the_last_window_is_found_whatever_the_order() -> None:
    windows = windows_of(SEQUENCES, POSITIONS)
    order = np.array([2, 4, 0, 5, 3, 1])
    mixed = taken(windows, order)
    result = forecast(mixed_engine(), mixed, Reader(MIXED), batch_size=64, extra_steps=1)
    assert result.sequence_id.tolist() == [7, 7, 3, 7, 3, 3, 1, 1, 7]
    assert result.item_position.tolist() == [11, 12, 6, 3, 8, 9, 6, 7, 10]


def test_a_target_that_is_no_input_is_not_fed_back() -> None:
    targets: dict[str, ColumnKind] = {"mood": "categorical", **MIXED}

    def compute(inputs, valid_mask):
        assert set(inputs) == {"item", "price"}
        return {**arithmetic(inputs, valid_mask), "mood": one_hot(inputs["item"][:, -1:])}

    windows = windows_of(SEQUENCES, POSITIONS)
    card = fake_card({"item": ITEMS}, {"price": UNIT}, targets)
    found = forecast(FakeEngine(card, compute), windows, Reader(targets), batch_size=2, extra_steps=4)
    plain = forecast(mixed_engine(), windows, Reader(MIXED), batch_size=2, extra_steps=4)
    assert found.values["item"].tolist() == plain.values["item"].tolist()
    rows = found.sequence_id == 1
    assert found.values["mood"][rows][1:].tolist() == found.values["item"][rows][:-1].tolist()


def spread(inputs, valid_mask):
    """Any item is as probable as any other; the price is the newest item's number."""
    item = inputs["item"][:, -1]
    return {"item": np.full((len(item), 1, 5), np.log(0.2)), "price": item[:, None, None].astype(float)}


@pytest.mark.parametrize("steps", [0, 3])
def test_samples_take_the_place_of_the_last_window(steps: int) -> None:
    windows, samples = windows_of(SEQUENCES, POSITIONS), 40
    engine = FakeEngine(fake_card({"item": ITEMS}, {"price": UNIT}, MIXED), spread)

    def run(batch_size: int, seed: int = 1):
        read = Reader(MIXED, sampled=["item"], seed=seed)
        return forecast(engine, windows, read, batch_size=batch_size, extra_steps=steps, samples=samples)

    result = run(64)
    assert result.sample is not None
    each = samples * (steps + 1)
    # Two windows of sequence 7 and one of sequence 3 come before the last ones.
    assert result.sequence_id.tolist() == [7] * (2 + each) + [1] * each + [3] * (1 + each)
    rows = np.flatnonzero(result.sequence_id == 1)
    assert result.sample[rows].tolist() == np.repeat(np.arange(samples), steps + 1).tolist()
    assert result.item_position[rows].tolist() == [
        6 + step for _ in range(samples) for step in range(steps + 1)
    ]
    assert result.sample[:2].tolist() == [-1, -1]
    items = result.values["item"][rows].reshape(samples, steps + 1)
    prices = result.values["price"][rows].reshape(samples, steps + 1)
    assert all(len(set(column)) == 5 for column in items.T.tolist())
    assert prices[:, 1:].tolist() == items[:, :-1].tolist()
    assert run(7).values["item"].tolist() == result.values["item"].tolist()
    assert run(64, seed=2).values["item"].tolist() != result.values["item"].tolist()
