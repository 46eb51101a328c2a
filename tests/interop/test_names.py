"""Sequifier's names lead to every parameter of ours and back, and every mismatch is told at once."""

from pathlib import Path

import jax
import numpy as np
import pytest

from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, buffers, from_sequifier, parameters, to_sequifier
from seqjax.interop.torch_files import read_torch_file
from seqjax.model.functional import abstract, init
from tests.architectures import architectures
from tests.reference import reference_case

ALL = pytest.mark.parametrize("architecture", architectures(), ids=lambda architecture: architecture.id)


def paths_and_shapes(params) -> dict[tuple[str, ...], tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {tuple(part.key for part in path): leaf.shape for path, leaf in leaves}


@ALL
def test_table_holds_every_parameter_of_the_model(architecture) -> None:
    _, params = abstract(architecture.schema, architecture.spec)
    table = parameters(params, architecture.schema)
    assert {row.path: row.shape for row in table} == paths_and_shapes(params)
    assert len({row.name for row in table}) == len(table)


@ALL
@pytest.mark.parametrize("embedding", [False, True])
def test_names_round_trip(architecture, embedding: bool) -> None:
    schema, spec = architecture.schema, architecture.spec
    _, params = init(schema, spec, seed=3)
    there = to_sequifier(params, schema, spec, embedding=embedding)
    assert all(name.startswith(EMBEDDING_PREFIX) == embedding for name in there)
    back = from_sequifier(there, abstract(schema, spec)[1], schema)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("case", ["A", "B", "C", "D", "L", "N"])
def test_written_names_are_those_of_sequifier_in_order(shared: Path, case: str) -> None:
    schema, spec, weights, _ = reference_case(shared, case)
    state = read_torch_file(weights)["model_state_dict"]
    written = to_sequifier(from_sequifier(state, abstract(schema, spec)[1], schema), schema, spec)
    assert list(written) == list(state)
    for name, values in state.items():
        np.testing.assert_allclose(written[name], values, rtol=1e-6, err_msg=name)


def test_every_mismatch_is_in_one_message() -> None:
    architecture = architectures()[0]
    schema, spec = architecture.schema, architecture.spec
    state = to_sequifier(init(schema, spec, seed=0)[1], schema, spec)
    del state["encoder.shop.id.weight"]
    state["layers.1.attn.wk.weight"] = state["layers.1.attn.wk.weight"].T
    state["layers.0.norm1.bias"] = np.zeros(20, np.int64)
    state["layers.2.norm1.weight"] = np.zeros(20, np.float32)
    with pytest.raises(ArtifactError) as caught:
        from_sequifier(state, abstract(schema, spec)[1], schema)
    message = str(caught.value)
    assert "missing: encoder.shop.id.weight (7, 7)" in message
    assert "wrong shape: layers.1.attn.wk.weight is (20, 10), not (10, 20)" in message
    assert "not an array of real numbers: layers.0.norm1.bias" in message
    assert "unexpected: layers.2.norm1.weight (20,)" in message


def test_rotary_frequencies_may_be_absent() -> None:
    architecture = next(each for each in architectures() if each.spec.positional_encoding == "rope")
    schema, spec = architecture.schema, architecture.spec
    state = to_sequifier(init(schema, spec, seed=0)[1], schema, spec)
    without = {name: values for name, values in state.items() if name not in buffers(spec)}
    assert len(without) == len(state) - spec.num_layers
    jax.tree.map(
        np.testing.assert_array_equal,
        from_sequifier(without, abstract(schema, spec)[1], schema),
        from_sequifier(state, abstract(schema, spec)[1], schema),
    )


def test_half_precision_files_become_float32() -> None:
    architecture = architectures()[0]
    schema, spec = architecture.schema, architecture.spec
    state = to_sequifier(init(schema, spec, seed=0)[1], schema, spec)
    halves = {name: values.astype(np.float16) for name, values in state.items()}
    tree = from_sequifier(halves, abstract(schema, spec)[1], schema)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(np.float32)}
