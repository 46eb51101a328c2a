"""The learning measurements, in little: floors are right, and a small chain is learnt to near its own."""

import dataclasses

import numpy as np
import pytest

from tools import learning


@pytest.fixture
def few_values(monkeypatch):
    """Chains of three values."""
    monkeypatch.setattr(learning, "CLASSES", 3)


def test_a_second_order_chain_is_learnt_to_near_its_entropy_rate(few_values):
    task = dataclasses.replace(learning.TASKS["markov"], length=24, rate=6e-3)
    found = learning.learn(task, 0, epochs=16, count=1500)
    assert found["floor"] == pytest.approx(found["oracle"], rel=0.02)
    assert found["error"] < 0.05


def test_an_entropy_rate_is_that_of_long_chains(few_values):
    table = learning._transitions(1)
    chain = learning._markov(np.random.default_rng(0), 200, 500, 1)["item"] - 2
    losses = -np.log(table[chain[:, :-2], chain[:, 1:-1], chain[:, 2:]])
    assert learning.entropy_rate(table) == pytest.approx(losses.mean(), rel=0.01)


@pytest.mark.parametrize("name", learning.TASKS)
def test_the_true_process_reaches_its_floor(name):
    task = learning.TASKS[name]
    columns = task.draw(np.random.default_rng(0), 2000, task.length + 1, 0)
    ids = columns.get("item", np.zeros((2000, task.length + 1), int))
    width = learning.CLASSES + 2
    perfect = np.log(np.eye(width)[ids[:, 1:]] + 1e-9)
    if name == "ar":
        perfect = columns["value"][:, 1:, None]
    if name == "noise":
        perfect = np.full((*perfect.shape[:2], width), -np.inf)
        perfect[..., 2:] = 0.0
    judged = task.judge(perfect, columns, 0)
    if name in ("copy", "noise"):
        assert judged["error"] < 1e-6
    else:
        assert judged["oracle"] == pytest.approx(judged["floor"], rel=0.01)
