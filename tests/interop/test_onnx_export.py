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
from seqjax.artifacts.model_files import dropout_feed, graph_feed, write_onnx
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError
from seqjax.interop import onnx_export
from seqjax.interop.onnx_export import GraphInput, LiveDropout, drop_live, export_onnx, external_data
from seqjax.interop.onnx_session import open_session
from seqjax.model.functional import merge
from seqjax.windows.windows import Batch
from tests.architectures import Architecture, RandomBatch, architectures, random_batch
from tests.batches import batch_of
from tests.models import card_of, random_model

ARCHITECTURES = {architecture.id: architecture for architecture in architectures()}
KINDS: tuple[Literal["generative", "embedding"], ...] = ("generative", "embedding")
TOLERANCE = 1e-5


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


def export_architecture(
    architecture: Architecture, model, kind, path: Path, *, dropout: float = 0.0, **described
) -> Exported:
    graphdef, params = model
    card = card_of(architecture.schema, architecture.spec).model_copy(
        update={"dropout": dropout, **described}
    )
    card = card.of_kind(kind, live_dropout=dropout > 0)
    write_onnx(path, params=params, graphdef=graphdef, card=card, sample=sample_of(architecture))
    return Exported(architecture, card, onnx.load(path), open_session(path))


def sample_of(architecture: Architecture) -> Batch:
    batch = random_batch(architecture, 3, seed=7)
    columns = {name: np.pad(values, ((0, 0), (0, 1))) for name, values in batch.inputs.items()}
    return batch_of(columns, (~batch.valid_mask).sum(axis=1).astype(np.int32))


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


def outputs_of(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(value) for value in session.run(None, feed)]


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


def test_parameters_that_are_too_large_for_the_file_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(1).normal(size=(3, 5000)).astype(np.float32)
    ends = {"inputs": [GraphInput("values", "float32")], "outputs": ["product"]}
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", weights.nbytes - 1)
    path = tmp_path / "model.onnx"
    export_onnx(path, lambda values: (values @ weights,), **ends, seq_length=3, description={})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < 1000
    assert external_data(path).stat().st_mode == path.stat().st_mode
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (path, external_data(path)):
        file.rename(moved / file.name)
    values = np.ones((2, 3), np.float32)
    (found,) = outputs_of(open_session(moved / "model.onnx"), {"values": values})
    np.testing.assert_allclose(found, values @ weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("location", ["../secret", "/secret", "a/../../secret"])
def test_a_model_cannot_read_data_outside_of_its_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(np.ones(2000, np.float32).tobytes())
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2000], np.ones(2000))
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    place = str(tmp_path / "secret") if location.startswith("/") else location
    tensor.external_data.add(key="location", value=place)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2000]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor]
    )
    opset = onnx.helper.make_opsetid("", onnx_export.OPSET)
    path = folder / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=[opset]).SerializeToString())
    with pytest.raises(ArtifactError, match=r"model\.onnx: onnxruntime cannot load it"):
        open_session(path)


def test_live_dropout_drops_at_the_rate_that_is_fed(tmp_path: Path) -> None:
    width, rows = 50, 4000
    path = tmp_path / "model.onnx"
    export_onnx(
        path,
        lambda values: (jnp.matmul(drop_live(values), jnp.ones((width, 1), jnp.float32)),),
        inputs=[GraphInput("keep", "float32")],
        outputs=["sum"],
        seq_length=width,
        description={},
        dropout=LiveDropout("rate", 0.2),
    )
    feed = {"keep": np.ones((rows, width), np.float32)}

    def run(seed: int | None, rate: float | None = None) -> np.ndarray:
        session = open_session(path, dropout_seed=seed)
        given = {} if rate is None else {"rate": np.array(rate, np.float32)}
        return outputs_of(session, feed | given)[0][:, 0]

    assert (run(None, 0.0) == width).all()
    dropped = run(1)
    # Each of the values is kept with probability 0.8, and is then 1 / 0.8.
    assert dropped.mean() == pytest.approx(width, rel=0.01)
    assert dropped.var() == pytest.approx(width * 0.2 / 0.8, rel=0.1)
    assert run(1, 0.5).var() == pytest.approx(width, rel=0.1)
    np.testing.assert_array_equal(run(1), dropped)
    assert (run(2) != dropped).any()


DROPPING = "rope-mqa-swiglu-rmsnorm-pre-mixed_to_both-last3-unmasked"


def test_a_model_drops_where_training_does(models, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[DROPPING]
    exported = export_architecture(
        architecture, models(DROPPING), "generative", tmp_path / "model.onnx", dropout=0.2
    )
    card = exported.card
    assert (card.dropout_input, card.dropout) == ("dropout_rate", 0.2)
    random = [node for node in exported.model.graph.node if node.op_type == "RandomUniformLike"]
    # Each column's embedding; of each layer attention's weights and output, and the same of feed-forward.
    assert len(random) == 3 + 4 * architecture.spec.num_layers
    batch = random_batch(architecture, 5, seed=3)
    feed = graph_feed(card, batch.inputs, batch.valid_mask)
    still = outputs_of(exported.session, feed | dropout_feed(card, live=False))
    expected = in_jax(architecture, models(DROPPING), batch)
    assert_close(dict(zip(card.outputs, still, strict=True)), expected)
    first, second = (outputs_of(exported.session, feed | dropout_feed(card, live=True)) for _ in range(2))
    for one, other, third in zip(still, first, second, strict=True):
        assert (one != other).all()
        assert (other != third).all()


@pytest.mark.parametrize("layers", [(0,), (2, 0), (1, 2)])
@pytest.mark.parametrize("name", [DROPPING, "learned-mha-gelu-layer_norm-post-real_to_both-last1-masked"])
def test_an_embedding_model_returns_the_layers_that_were_chosen(models, tmp_path: Path, name, layers) -> None:
    architecture = ARCHITECTURES[name]
    exported = export_architecture(
        architecture, models(name), "embedding", tmp_path / "model.onnx", embedding_layers=layers
    )
    batch = random_batch(architecture, 4, seed=3)
    (found,) = outputs_of(exported.session, graph_feed(exported.card, batch.inputs, batch.valid_mask))
    spec = architecture.spec
    assert found.shape == (4, spec.prediction_length, spec.dim_model * len(layers))
    model = merge(*models(name))
    expected = model.embed(
        {name: jnp.asarray(values) for name, values in batch.inputs.items()},
        jnp.asarray(batch.valid_mask),
        layers=layers,
    )
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    if spec.num_layers in layers:
        whole = in_jax(architecture, models(name), batch)["embedding"]
        at = layers.index(spec.num_layers) * spec.dim_model
        np.testing.assert_allclose(found[..., at : at + spec.dim_model], whole, rtol=1e-5, atol=1e-5)
    assert len(exported.model.graph.node) < 400
