"""What explains the losses of a search."""

import numpy as np

from seqjax.sweep.importance import importance


def rows(count, seed=0):
    """Runs whose loss depends on the rate a lot, on the layers a little, and on the colour not at all."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rate, layers, colour = 10 ** rng.uniform(-4, -1), int(rng.integers(1, 4)), str(rng.choice(["r", "g"]))
        loss = abs(np.log10(rate) + 4) + 0.3 * layers + 0.01 * rng.normal()
        made.append({"rate": float(rate), "layers": layers, "colour": colour, "loss": float(loss)})
    return made


def test_settings_are_ranked_by_what_they_explain():
    found = importance(rows(200), ["colour", "layers", "rate"], "loss")
    assert list(found) == ["rate", "layers", "colour"]
    assert 0.7 < found["rate"] <= 1
    assert 0.01 < found["layers"] < 0.3
    assert found["colour"] < 0.03


def test_one_wild_run_does_not_decide():
    some = rows(60)
    before = importance(some, ["rate"], "loss")["rate"]
    some[3]["loss"] = 1e12
    assert abs(importance(some, ["rate"], "loss")["rate"] - before) < 0.15


def test_what_cannot_be_told_is_not():
    assert importance(rows(2), ["rate"], "loss") == {}
    constant = [{"a": [1, 2], "loss": 1.0}, {"a": None, "loss": 1.0}, {"a": [1, 2], "loss": 1.0}]
    assert importance(constant, ["a"], "loss") == {"a": 0.0}
    failed = [{"a": place, "loss": None} for place in range(5)]
    assert importance(failed, ["a"], "loss") == {}
