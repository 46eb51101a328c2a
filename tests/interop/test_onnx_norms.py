"""Normalisations are written so that onnxruntime fuses them, and compute the same."""

from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from seqjax.interop.onnx_export import GraphInput, export_onnx
from seqjax.model.layers import Norm, make_norm

FUSED = {"rmsnorm": "SimplifiedLayerNormalization", "layer_norm": "LayerNormalization"}


def optimised(path: Path) -> Counter[str]:
    """The operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("optimised.onnx"))
    onnxruntime.InferenceSession(path, options)
    graph = onnx.load(path.with_name("optimised.onnx")).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("kind", ["rmsnorm", "layer_norm"])
def test_two_norms_in_a_row_are_two_nodes(tmp_path: Path, kind) -> None:
    rng = np.random.default_rng(0)
    norms: list[Norm] = [make_norm(kind, 6), make_norm(kind, 6)]
    for norm in norms:
        norm.weight[...] = jnp.asarray(rng.normal(size=6), jnp.float32)

    def forward(x: jax.Array, unused: jax.Array) -> list[jax.Array]:
        wide = jnp.stack([x] * 6, axis=-1) * jnp.arange(6, dtype=jnp.float32)[None, None]
        return [norms[1](jnp.tanh(norms[0](wide)))]

    path = tmp_path / "x.onnx"
    inputs = [GraphInput("x", "float32"), GraphInput("two", "float32")]
    export_onnx(path, forward, inputs=inputs, outputs=["y"], seq_length=4, description={})
    assert optimised(path)[FUSED[kind]] == 2
    x = rng.normal(size=(3, 4)).astype(np.float32) * 5
    found = onnxruntime.InferenceSession(path).run(None, {"x": x, "two": x})[0]
    np.testing.assert_allclose(
        np.asarray(found), forward(jnp.asarray(x), jnp.asarray(x))[0], rtol=1e-5, atol=1e-6
    )
