import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.config.optimization import OPTIMIZERS
from seqjax.training.step import Constants, build_step, empty_table, new_state
from tests.training.conftest import report


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_new_state_can_be_consumed_and_leaves_the_parameters_alone(case, name):
    recipe, feed = case.recipe(optimizer=name), case.feed()
    before = jax.tree.map(np.array, case.params)
    state = new_state(case.params, recipe.optimizer)
    constants = Constants(jnp.full(6, 0.01, jnp.float32), jax.random.key(0, impl="rbg"))
    fold = feed.fold(build_step(recipe))
    state, table = fold((state, empty_table(case.targets)), constants, feed.place(case.order(4)), 0, 2)
    assert int(state.step) == 2
    assert report(table, case.targets, 0, 2).first_bad == -1
    jax.tree.map(np.testing.assert_array_equal, case.params, before)
    moved = jax.tree.map(lambda new, old: bool(np.any(np.asarray(new) != old)), state.params, before)
    assert any(jax.tree.leaves(moved))
