"""The forward pass of sequifier's models, trained and random, within 1e-5 of what sequifier computed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.interop.names import from_sequifier
from seqjax.interop.torch_files import read_torch_file
from seqjax.model.functional import abstract, merge
from tests.reference import FORWARD_CASES, PROJECT_CASES, reference_case

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", [*FORWARD_CASES, *PROJECT_CASES])
def test_forward_equals_sequifier(shared: Path, name: str) -> None:
    case = reference_case(shared, name)
    graphdef, shapes = abstract(case.schema, case.spec)
    params = from_sequifier(read_torch_file(case.weights)["model_state_dict"], shapes, case.schema)
    with np.load(case.outputs) as arrays:
        expected = dict(arrays)
    dtypes = dict.fromkeys(case.schema.categorical_inputs, jnp.int32)
    inputs = {
        column: jnp.asarray(expected[f"in__{column}"], dtypes.get(column, jnp.float32))
        for column in case.schema.inputs
    }

    @jax.jit
    def forward(params, inputs):
        model = merge(graphdef, params)
        found = {"hidden": model.hidden(inputs), "embed": model.embed(inputs)}
        found |= {f"raw__{target}": values for target, values in model(inputs).items()}
        return found | {f"out__{target}": values for target, values in model.predict(inputs).items()}

    found = forward(params, inputs)
    assert set(found) == {key for key in expected if not key.startswith("in__")}
    for key, values in found.items():
        by_position = np.swapaxes(values, 0, 1)
        np.testing.assert_allclose(by_position, expected[key], rtol=0, atol=TOLERANCE, err_msg=key)


def test_embedding_exports_hold_the_same_parameters(shared: Path) -> None:
    case = reference_case(shared, "A")
    _, shapes = abstract(case.schema, case.spec)
    generative, embedding = (
        from_sequifier(read_torch_file(path)["model_state_dict"], shapes, case.schema)
        for path in (case.weights, case.weights.with_name("A-embedding.pt"))
    )
    jax.tree.map(np.testing.assert_array_equal, generative, embedding)
