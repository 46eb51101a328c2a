import logging
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.artifacts import checkpoints
from seqjax.artifacts.atomic import check_manifest
from seqjax.artifacts.checkpoints import (
    CheckpointWriter,
    Found,
    load_info,
    load_tree,
    newest_intact,
    save_checkpoint,
    trim_checkpoints,
)
from seqjax.artifacts.layout import Layout, Place
from seqjax.config.optimization import NamedSpec
from seqjax.errors import ArtifactError
from seqjax.optim.optimizers import BUILDERS, build_optimizer
from seqjax.training.placement import to_host
from seqjax.training.step import new_state
from tests.training.conftest import make_case


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


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_formats_come_back_bit_by_bit(layout, name):
    tree = {"a": {"b": RNG.normal(size=(3, 2)).astype(jnp.dtype(name))}}
    found = load_tree(save_checkpoint(layout, Place(1), tree, {}), shapes(tree))
    np.testing.assert_array_equal(found["a"]["b"], tree["a"]["b"], strict=True)


def test_a_tree_comes_back_bit_by_bit(layout):
    path = save_checkpoint(
        layout, Place(3), (STATE, STATE.params), {"best_loss": 0.1 + 0.2, "config": {"a": [1]}}
    )
    assert layout.saved() == [Place(3)]
    state, best = load_tree(path, shapes((STATE, STATE.params)))
    assert isinstance(state, State)
    jax.tree.map(np.testing.assert_array_equal, (state, best), (STATE, STATE.params))
    info = load_info(path)
    assert (info["best_loss"], info["config"]) == (0.1 + 0.2, {"a": [1]})


@pytest.fixture(scope="module")
def params():
    """A small model's."""
    return make_case().params


@pytest.mark.parametrize("optimizer", BUILDERS)
def test_the_state_of_any_optimizer_comes_back_bit_by_bit(layout, params, optimizer):
    built = build_optimizer(NamedSpec.of(optimizer))
    state = new_state(params, built)
    _, moved = jax.jit(built.rule.update)(params, state.opt_state, params, 0.1)
    state = to_host(state._replace(opt_state=moved))
    found = load_tree(save_checkpoint(layout, Place(1), state, {}), shapes(state))
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), found, state)


def test_an_epoch_is_replaced(layout):
    save_checkpoint(layout, Place(1), {"a": np.zeros(2)}, {})
    path = save_checkpoint(layout, Place(1), {"a": np.ones(2)}, {})
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
    path = save_checkpoint(layout, Place(1), {"a": np.zeros(2)}, {})
    with pytest.raises(ArtifactError) as error:
        load_tree(path, like)
    assert message in str(error.value)


def test_a_damaged_checkpoint_is_named(layout):
    layout.checkpoint(1).mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"epoch-1 cannot be read as a checkpoint .* Remove this folder"):
        load_info(layout.checkpoint(1))


def test_older_checkpoints_are_removed(layout):
    for epoch in (1, 2, 8):
        save_checkpoint(layout, Place(epoch), {"a": np.zeros(1)}, {})
    other = Layout(layout.root, "demo2")
    save_checkpoint(other, Place(1), {"a": np.zeros(1)}, {})
    trim_checkpoints(layout, newest=Place(2), count=1)
    assert (layout.saved(), other.saved()) == ([Place(2)], [Place(1)])


@pytest.mark.parametrize(
    ("count", "kept"), [(None, [1, 2, 4, 6]), (3, [2, 4, 6]), (1, [6]), (9, [1, 2, 4, 6])]
)
def test_the_newest_are_kept_and_none_after_the_last_saved(layout, count, kept):
    for epoch in (1, 2, 4, 6, 8):
        layout.checkpoint(epoch).mkdir(parents=True)
    trim_checkpoints(layout, newest=Place(6), count=count)
    assert layout.saved() == list(map(Place, kept))


def test_damaged_checkpoints_are_passed_over(layout):
    assert newest_intact(layout) == Found(None, ())
    for epoch in (1, 2, 8):
        save_checkpoint(layout, Place(epoch), {"a": np.arange(3.0)}, {})
    assert newest_intact(layout) == Found(Place(8), ())
    (layout.checkpoint(8) / "manifest.json").unlink()
    assert newest_intact(layout).place == Place(2)
    next(layout.checkpoint(2).glob("info/**/*")).write_text("")
    place, damaged = newest_intact(layout)
    assert place == Place(1)
    assert "epoch-8 is damaged or was not finished" in damaged[0]
    assert "epoch-2 is damaged: info/" in damaged[1]
    (layout.checkpoint(1) / "extra").touch()
    with pytest.raises(ArtifactError, match=r"no checkpoint that is intact \(epoch-1, epoch-2, epoch-8\)"):
        newest_intact(layout)


def test_any_flipped_bit_is_seen(layout):
    path = save_checkpoint(layout, Place(1, 7), (STATE, STATE.params), {"best_loss": 0.5})
    check_manifest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    rng = np.random.default_rng(1)
    for file in files:
        content = file.read_bytes()
        for bit in rng.integers(0, 8 * len(content), 3):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(damaged)
            with pytest.raises(ArtifactError, match="epoch-2-batch-7 is damaged"):
                check_manifest(path)
        file.write_bytes(content)
    check_manifest(path)


def test_a_writer_replaces_an_earlier_run_and_keeps_the_newest(layout):
    save_checkpoint(layout, Place(9), {"a": np.zeros(1)}, {})
    (layout.checkpoints / ".epoch-9.0123.new-4567").mkdir()
    writer = CheckpointWriter(layout, keep=2, fresh=True)
    for place in (Place(0, 5), Place(1), Place(1, 2)):
        writer.start(place, {"a": np.full(1, place.batch)}, {})
    writer.finish()
    assert layout.saved() == [Place(1), Place(1, 2)]
    assert [path.name for path in layout.checkpoints.glob(".*")] == []
    assert load_tree(layout.checkpoint(1, 2), {"a": np.zeros(1, int)})["a"] == 2


def test_a_writer_logs_each_checkpoint_once_in_its_callers_thread(layout, caplog):
    """Lines go to the log of the run that is at work in that thread."""
    writer = CheckpointWriter(layout, keep=2, fresh=True)
    with caplog.at_level(logging.INFO):
        for epoch in (1, 2):
            writer.start(Place(epoch), {"a": np.zeros(1)}, {})
        writer.finish()
        writer.start(Place(3), {"a": np.zeros(1)}, {})
        while writer.busy:
            time.sleep(0.01)
        writer.tell()
        writer.start(Place(4), {"a": np.zeros(1)}, {})
        writer.close()
    told = [(record.threadName, record.message) for record in caplog.records if "Saved" in record.message]
    paths = [layout.checkpoint(epoch) for epoch in (1, 2, 3, 4)]
    assert told == [("MainThread", f"[INFO] Saved model to {path}") for path in paths]


def test_a_run_outlives_a_checkpoint_that_cannot_be_written(layout, caplog, monkeypatch):
    writer = CheckpointWriter(layout, keep=2, fresh=True)
    layout.checkpoints.parent.mkdir()
    layout.checkpoints.write_text("a file where the folder should be")
    writer.start(Place(1), {"a": np.zeros(1)}, {})
    with pytest.raises(ArtifactError, match="No checkpoint could be written"):
        writer.finish()
    writer.start(Place(2), {"a": np.zeros(1)}, {})
    layout.checkpoints.unlink()
    writer.start(Place(3), {"a": np.zeros(1)}, {})
    writer.finish()
    assert Place(3) in layout.saved()


def test_what_could_not_be_written_takes_no_space(layout, monkeypatch):
    def fill_the_disk(layout, *_):
        unfinished = layout.checkpoints / ".epoch-1.0123.new-4567.orbax-checkpoint-tmp"
        unfinished.mkdir(parents=True)
        (unfinished / "half").write_bytes(b"0" * 100)
        raise ValueError("RESOURCE_EXHAUSTED: no space")

    monkeypatch.setattr(checkpoints, "save_checkpoint", fill_the_disk)
    writer = CheckpointWriter(layout, keep=2, fresh=True)
    writer.start(Place(1), {"a": np.zeros(1)}, {})
    with pytest.raises(ArtifactError, match="RESOURCE_EXHAUSTED"):
        writer.finish()
    assert list(layout.checkpoints.iterdir()) == []
