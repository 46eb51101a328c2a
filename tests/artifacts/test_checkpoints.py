from typing import NamedTuple

import jax
import numpy as np
import pytest

from seqjax.artifacts.checkpoints import (
    load_info,
    load_tree,
    newest_intact,
    remove_checkpoints,
    save_checkpoint,
    trim_checkpoints,
)
from seqjax.artifacts.layout import Layout
from seqjax.errors import ArtifactError


class State(NamedTuple):
    params: dict
    moments: tuple
    step: np.ndarray


RNG = np.random.default_rng(0)
STATE = State(
    {"layers": {str(i): {"a.b": RNG.normal(size=(2, i + 1)).astype(np.float32)} for i in range(12)}},
    (np.asarray([1e-30, np.pi], np.float32), ()),
    np.asarray(7, np.int32),
)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path, "demo")


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def test_a_tree_comes_back_bit_by_bit(layout):
    path = save_checkpoint(layout, 3, (STATE, STATE.params), {"best_loss": 0.1 + 0.2, "config": {"a": [1]}})
    assert layout.saved_epochs() == [3]
    state, best = load_tree(path, shapes((STATE, STATE.params)))
    assert isinstance(state, State)
    jax.tree.map(np.testing.assert_array_equal, (state, best), (STATE, STATE.params))
    info = load_info(path)
    assert (info["best_loss"], info["config"]) == (0.1 + 0.2, {"a": [1]})


def test_an_epoch_is_replaced(layout):
    save_checkpoint(layout, 1, {"a": np.zeros(2)}, {})
    path = save_checkpoint(layout, 1, {"a": np.ones(2)}, {})
    np.testing.assert_array_equal(load_tree(path, {"a": np.zeros(2)})["a"], [1, 1])


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"b": np.zeros(2)}, "another model or optimizer: ['a'], ['b'] differs"),
        ({"a": np.zeros(3)}, "['a'] is float64 (2,) where the configuration gives float64 (3,)"),
        ({"a": np.zeros(2, np.float32)}, "gives float32 (2,)"),
    ],
)
def test_another_structure_is_refused(layout, like, message):
    path = save_checkpoint(layout, 1, {"a": np.zeros(2)}, {})
    with pytest.raises(ArtifactError) as error:
        load_tree(path, like)
    assert message in str(error.value)


def test_a_damaged_checkpoint_is_named(layout):
    layout.checkpoint(1).mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"epoch-1 cannot be read as a checkpoint .* Remove this folder"):
        load_info(layout.checkpoint(1))


def test_older_checkpoints_are_removed(layout):
    for epoch in (1, 2, 8):
        save_checkpoint(layout, epoch, {"a": np.zeros(1)}, {})
    other = Layout(layout.root, "demo2")
    save_checkpoint(other, 1, {"a": np.zeros(1)}, {})
    remove_checkpoints(layout, keep=2)
    assert (layout.saved_epochs(), other.saved_epochs()) == ([2], [1])


@pytest.mark.parametrize(
    ("count", "kept"), [(None, [1, 2, 4, 6]), (3, [2, 4, 6]), (1, [6]), (9, [1, 2, 4, 6])]
)
def test_the_newest_are_kept_and_none_after_the_last_saved(layout, count, kept):
    for epoch in (1, 2, 4, 6, 8):
        layout.checkpoint(epoch).mkdir(parents=True)
    trim_checkpoints(layout, newest=6, count=count)
    assert layout.saved_epochs() == kept


def test_a_damaged_checkpoint_is_passed_over_aloud(layout, caplog):
    assert newest_intact(layout) is None
    for epoch in (1, 2, 8):
        save_checkpoint(layout, epoch, {"a": np.arange(3.0)}, {})
    assert newest_intact(layout) == 8
    (layout.checkpoint(8) / "manifest.json").unlink()
    assert newest_intact(layout) == 2
    next(layout.checkpoint(2).glob("info/**/*")).write_text("")
    assert newest_intact(layout) == 1
    assert "epoch-2 is damaged: info/" in caplog.text
    assert "epoch-8 is damaged or was not finished" in caplog.text
    (layout.checkpoint(1) / "extra").touch()
    with pytest.raises(ArtifactError, match=r"no checkpoint that is intact \(epochs \[1, 2, 8\]\)"):
        newest_intact(layout)
