"""How training begins from other models, and how it ends: early, by a loss that is not finite, or at once."""

import logging
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

from seqjax.artifacts.checkpoints import load_best
from seqjax.artifacts.layout import Layout, Place
from seqjax.commands.train import train
from seqjax.errors import DataError, TrainingError
from tests.commands.test_train import config, events, project

__all__ = ["project"]
pytestmark = pytest.mark.usefixtures("compile_once")

STILL = {"name": "MultiStepLR", "milestones": [1], "gamma": 1e-30}
"""Nothing moves after the first epoch."""


def test_a_loss_that_does_not_fall_any_more_ends_the_run(project):
    root, exported = project
    settings = {"epochs": 9, "scheduler": STILL, "save_interval_epochs": 5}
    result = train(config(root, training={**settings, "early_stopping_epochs": 2}))
    assert (result.best_epoch, result.last_epoch) == (1, 3)
    assert [(call["which"], call["epoch"]) for call in exported] == [("best", 3), ("last", 3)]
    assert [event["finished"] for event in events(root, "standing")] == [False, False, True]
    again = train(config(root, training={**settings, "early_stopping_epochs": 2}))
    assert again.last_epoch == 3
    text = (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert "To go on, raise epochs (9) or early_stopping_epochs" in text
    assert train(config(root, training={**settings, "early_stopping_epochs": 3})).last_epoch == 4


def test_the_last_good_checkpoint_outlives_a_loss_that_is_not_finite(project):
    root, exported = project
    wild = {"name": "MultiStepLR", "milestones": [1], "gamma": 1e32}
    with pytest.raises(TrainingError, match=r"epoch 2, batch \d of 8 .* windows: sequence \d+ items"):
        train(config(root, training={"scheduler": wild, "save_interval_epochs": 1}))
    assert exported == []
    assert Layout(root, "demo").saved() == [Place(1)]
    assert [event["epoch"] for event in events(root, "validation")] == [0, 1]
    last = (root / "logs/sequifier-demo-rank0-3.txt").read_text().splitlines()[-1]
    assert "| ERROR | [ERROR] The loss or its gradient is not finite at step " in last


@pytest.mark.parametrize("split", [0, 1])
def test_an_empty_split_is_explained_before_training(project, split):
    root, exported = project
    path = root / f"data/d-split{split}.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    with pytest.raises(DataError, match=rf"d-split{split}\.parquet holds no windows"):
        train(config(root))
    assert exported == []


def test_a_run_starts_from_another_model_and_leaves_frozen_parameters_as_they_are(project):
    root, _ = project
    train(config(root, model_name="first", training={"epochs": 1, "save_interval_epochs": 1}))
    begin = {"warm_start": "checkpoints/first/epoch-1", "freeze": ["encoder.*"]}
    train(config(root, training={"epochs": 1, "save_interval_epochs": 1, **begin}))
    first, second = (load_best(Layout(root, name).checkpoint(1)) for name in ("first", "demo"))
    same = jax.tree.map(np.array_equal, first, second)
    assert all(jax.tree.leaves(same["encoder"]))
    assert not any(jax.tree.leaves(same["decoder"]))


def test_what_was_compiled_is_read_from_disk_by_the_next_run(project, caplog):
    root, _ = project
    settings = {"epochs": 1, "save_interval_epochs": 1}
    train(config(root, model_name="first", training=settings))
    folder = Path(jax.config.values["jax_compilation_cache_dir"])
    before = {path.name for path in folder.iterdir()}
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(config(root, training=settings))
    assert "Persistent compilation cache hit for 'jit_loop'" in caplog.text
    assert {path.name for path in folder.iterdir()} == before
