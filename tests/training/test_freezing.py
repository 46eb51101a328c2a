import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.optimization import OPTIMIZERS, NamedSpec
from seqjax.errors import ConfigError
from seqjax.optim.optimizers import build_optimizer
from seqjax.training.setup import frozen_parameters
from seqjax.training.step import Constants, Recipe, build_step, empty_table, forward, new_state


def test_patterns_choose_parameters(case):
    found = frozen_parameters(["encoder.item.*", "layers.0.attn.w?.weight"], case.params, case.schema)
    attention = {("layers", "0", "attn", name, "weight") for name in ("wq", "wk", "wv", "wo")}
    assert found == {("encoder", "0", "weight")} | attention


def test_a_pattern_that_matches_nothing_is_a_mistake(case):
    with pytest.raises(ConfigError) as error:
        frozen_parameters(["encoder.itme.weight", "decoder.*", "layer.*"], case.params, case.schema)
    text = str(error.value)
    assert "training_spec.freeze.0: 'encoder.itme.weight' is the name of no parameter" in text
    assert "Did you mean 'encoder.item.weight'?" in text
    assert "training_spec.freeze.2: 'layer.*' is the name of no parameter" in text
    assert "freeze.1" not in text
    with pytest.raises(ConfigError, match="nothing is left to train"):
        frozen_parameters(["*"], case.params, case.schema)


@pytest.mark.parametrize("name", ["AdamW", "Muon", "AdamWScheduleFree", "Adafactor"])
def test_frozen_parameters_do_not_move_by_a_bit(case, name):
    frozen = frozen_parameters(["encoder.*", "*.norm1.weight"], case.params, case.schema)
    assert name in OPTIMIZERS
    optimizer = build_optimizer(NamedSpec.of(name), frozen=frozen)
    apply = forward(case.graphdef, case.schema.inputs)
    feed, order = case.feed(), case.order(4)
    fold = feed.fold(build_step(Recipe(apply, case.targets, optimizer, clip=0.5, dropout=0.1)))
    state = new_state(case.params, optimizer)
    carry = state, empty_table(case.targets)
    constants = Constants(jnp.full(6, 0.02), jax.random.key(0))
    after, _ = fold(carry, constants, feed.place(order), 0, 6)
    moved = {
        tuple(key.key for key in path)
        for path, same in jax.tree_util.tree_flatten_with_path(
            jax.tree.map(lambda a, b: np.array_equal(a, b), after.params, case.params)
        )[0]
        if not same
    }
    everything = {
        tuple(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(case.params)[0]
    }
    assert moved == everything - frozen
    shapes = [leaf.shape for leaf in jax.tree.leaves(after.opt_state)]
    assert case.params["encoder"]["0"]["weight"].shape not in shapes
