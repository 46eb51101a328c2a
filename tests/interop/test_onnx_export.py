"""Exported graphs compute what JAX computes, take any batch, and have the promised names and types."""

import logging
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from seqjax.artifacts.card import CARD_KEY, ModelCard
from seqjax.artifacts.model_files import graph_feed, write_onnx
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError
from seqjax.interop import onnx_export
from seqjax.interop.onnx_export import GraphInput, export_onnx
from seqjax.interop.onnx_session import open_session
from seqjax.model.functional import merge
from tests.architectures import Architecture, RandomBatch, architectures, random_batch
from tests.models import card_of, random_model

ARCHITECTURES = {architecture.id: architecture for architecture in architectures()}
KINDS: tuple[Literal["generative", "embedding"], ...] = ("generative", "embedding")
TOLERANCE = 1e-5


class Sample(NamedTuple):
    columns: dict[str, np.ndarray]
    padding: np.ndarray


class Exported(NamedTuple):
    architecture: Architecture
    card: ModelCard
    model: onnx.ModelProto
    session: onnxruntime.InferenceSession


@pytest.fixture(scope="module")
def models():
    return cache(lambda name: random_model(ARCHITECTURES[name].schema, ARCHITECTURES[name].spec, seed=1))


@pytest.fixture(scope="module")
def exported(models):
    with TemporaryDirectory() as folder:

        @cache
        def export(name: str, kind: Literal["generative", "embedding"]) -> Exported:
            return export_architecture(ARCHITECTURES[name], models(name), kind, Path(folder) / "model.onnx")

        yield export


def export_architecture(architecture: Architecture, model, kind, path: Path) -> Exported:
    graphdef, params = model
    card = card_of(architecture.schema, architecture.spec).of_kind(kind)
    write_onnx(path, params=params, graphdef=graphdef, card=card, sample=sample_of(architecture))
    return Exported(architecture, card, onnx.load(path), open_session(path))


def sample_of(architecture: Architecture) -> Sample:
    batch = random_batch(architecture, 3, seed=7)
    columns = {name: np.pad(values, ((0, 0), (0, 1))) for name, values in batch.inputs.items()}
    return Sample(columns, (~batch.valid_mask).sum(axis=1).astype(np.int32))


def in_jax(architecture: Architecture, model, batch: RandomBatch) -> dict[str, np.ndarray]:
    """The outputs of both kinds of model, from all positions."""
    graphdef, params = model
    count, kinds = architecture.spec.prediction_length, architecture.schema.targets

    def apply(params, inputs, valid_mask):
        model = merge(graphdef, params)
        raw = model(inputs, valid_mask)
        outputs = {
            name: jax.nn.log_softmax(values[:, -count:])
            if kinds[name] == "categorical"
            else values[:, -count:]
            for name, values in raw.items()
        }
        return {**outputs, "embedding": model.hidden(inputs, valid_mask)[:, -count:]}

    # Compiled for one call: quickly, not for speed.
    compute = jax.jit(apply, compiler_options={"xla_backend_optimization_level": 0})
    return jax.device_get(compute(params, batch.inputs, batch.valid_mask))


def in_onnx(item: Exported, inputs: dict[str, np.ndarray], valid_mask: np.ndarray) -> dict[str, np.ndarray]:
    values = item.session.run(list(item.card.outputs.values()), graph_feed(item.card, inputs, valid_mask))
    return {name: np.asarray(value) for name, value in zip(item.card.outputs, values, strict=True)}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in found.items():
        assert values.shape == expected[name].shape
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_computes_what_jax_computes(exported, models, name: str) -> None:
    batch = random_batch(ARCHITECTURES[name], 5, seed=5)
    expected = in_jax(ARCHITECTURES[name], models(name), batch)
    for kind in KINDS:
        item = exported(name, kind)
        for rows in (1, 5):
            found = in_onnx(
                item, {key: values[:rows] for key, values in batch.inputs.items()}, batch.valid_mask[:rows]
            )
            assert (
                set(found) == {"embedding"} if kind == "embedding" else set(item.architecture.schema.targets)
            )
            assert_close(found, {key: values[:rows] for key, values in expected.items()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_is_valid_and_named_as_promised(exported, name: str, kind) -> None:
    item = exported(name, kind)
    schema, spec = item.architecture.schema, item.architecture.spec
    onnx.checker.check_model(item.model, full_check=True)
    ids = [(column, "tensor(int64)") for column in schema.categorical_inputs]
    values = [(column, "tensor(float)") for column in schema.real_inputs]
    mask = [("valid_mask", "tensor(bool)")] if spec.mask_padding else []
    inputs = item.session.get_inputs()
    assert [(end.name, end.type) for end in inputs] == [*ids, *values, *mask]
    assert all(end.shape == ["batch", schema.seq_length] for end in inputs)
    count = spec.prediction_length
    if kind == "embedding":
        expected = [("embedding", ["batch", count, spec.dim_model])]
    else:
        suffix = {"categorical": "_log_probs", "real": "_value"}
        expected = [
            (column + suffix[kind], ["batch", count, schema.head_width(column)])
            for column, kind in schema.targets.items()
        ]
    assert [(end.name, end.shape) for end in item.session.get_outputs()] == expected
    assert [(entry.domain, entry.version) for entry in item.model.opset_import] == [("", 18)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_card_travels_with_the_graph(exported, name: str) -> None:
    item = exported(name, "embedding")
    text = {entry.key: entry.value for entry in item.model.metadata_props}[CARD_KEY]
    assert ModelCard.from_json(text, "model.onnx") == item.card


@pytest.mark.parametrize("name", [name for name, item in ARCHITECTURES.items() if item.spec.mask_padding])
def test_masked_slots_change_nothing(exported, name: str) -> None:
    item = exported(name, "generative")
    batch = random_batch(item.architecture, 5, seed=3)
    # The last P positions of a window with fewer real items than that read their own slot, padded as it is.
    padding = np.array([0, 1, 2, 3, 3])
    valid = np.arange(item.architecture.schema.seq_length) >= padding[:, None]
    other = {column: np.where(valid, values, np.ones_like(values)) for column, values in batch.inputs.items()}
    plain = {column: np.where(valid, values, 0 * values) for column, values in batch.inputs.items()}
    assert_close(in_onnx(item, other, valid), in_onnx(item, plain, valid))
    unmasked = in_onnx(item, other, np.ones_like(valid))
    assert any(
        np.abs(values[1:] - unmasked[key][1:]).max() > 1e-3
        for key, values in in_onnx(item, other, valid).items()
    )


NAMES = {
    "awkward": ["a b", "item.x", "straße/日本", "class", "None", "in_0", 'quo"te\n'],
    # What the exporter calls values inside a graph.
    "internal": ["Gather_0", "const_0", "add_out_0", "matmul_out_0", "reshape_out_0", "in_1", "Reshape_0"],
    "clashing": ["valid_mask", "valid_mask_", "a", "a_log_probs", "x", "x_value", "x_int32"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_columns_may_have_any_name(tmp_path: Path, names: list[str], kind) -> None:
    categorical, real = tuple(names[:4]), tuple(names[4:])
    schema = Schema(
        n_classes=dict.fromkeys(categorical, 5),
        categorical_inputs=categorical,
        real_inputs=real,
        targets={**dict.fromkeys(categorical, "categorical"), **dict.fromkeys(real, "real")},
        seq_length=4,
    )
    spec = ModelSpec(
        initial_embedding_dim=16,
        dim_model=16,
        n_head=2,
        dim_feedforward=8,
        num_layers=1,
        feature_embedding_dims={**dict.fromkeys(categorical, 3), real[0]: 2, real[1]: 1, real[2]: 1},
    )
    architecture, model = Architecture("names", schema, spec), random_model(schema, spec, seed=1)
    item = export_architecture(architecture, model, kind, tmp_path / "model.onnx")
    ends = [*item.session.get_inputs(), *item.session.get_outputs()]
    assert len({end.name for end in ends}) == len(ends)
    assert [end.name for end in item.session.get_inputs()][:7] == names
    batch = random_batch(item.architecture, 2, seed=1)
    found = in_onnx(item, batch.inputs, batch.valid_mask)
    assert_close(found, in_jax(architecture, model, batch))


def test_clashing_names_get_underscores() -> None:
    schema = Schema(
        n_classes={"valid_mask": 3, "a": 3, "embedding": 3},
        categorical_inputs=("valid_mask", "a", "embedding"),
        real_inputs=("a_log_probs",),
        targets={"a": "categorical", "a_log_probs": "real"},
        seq_length=4,
    )
    spec = ModelSpec(initial_embedding_dim=4, dim_model=4, n_head=1, dim_feedforward=4, num_layers=1)
    card = card_of(schema, spec)
    assert card.valid_mask == "valid_mask_"
    assert card.outputs == {"a": "a_log_probs_", "a_log_probs": "a_log_probs_value"}
    assert card.of_kind("embedding").outputs == {"embedding": "embedding_"}


def double(ids, values):
    return jnp.take(jnp.arange(4, dtype=jnp.float32), ids, axis=0) + values, values


ENDS = {"inputs": [GraphInput("ids", "int64"), GraphInput("values", "float32")], "outputs": ["sum", "same"]}


def test_export_leaves_logging_and_warnings_as_they_were(tmp_path: Path, capfd) -> None:
    noisy = [logging.getLogger(name) for name in ("onnx_ir", "onnx_ir.serde", "jax2onnx")]
    levels, filters = [logger.level for logger in noisy], list(warnings.filters)
    export_onnx(tmp_path / "model.onnx", double, **ENDS, seq_length=3, description={})
    open_session(tmp_path / "model.onnx")
    assert [logger.level for logger in noisy] == levels
    assert warnings.filters == filters
    assert not jax.config.read("jax_enable_x64")
    assert capfd.readouterr() == ("", "")


def test_too_large_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 100)
    with pytest.raises(ArtifactError, match=r"model\.onnx: the model takes .* GB, more than the 2 GB"):
        export_onnx(tmp_path / "model.onnx", double, **ENDS, seq_length=3, description={})
    assert not list(tmp_path.iterdir())
