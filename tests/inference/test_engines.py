"""Every kind of model file is opened by the engine that runs it, and all engines compute the same."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import ModelKind
from seqjax.artifacts.model_files import read_pt, write_onnx, write_pt
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError, ConfigError
from seqjax.inference import jax_engine
from seqjax.inference.engine import Engine, OnnxEngine
from seqjax.inference.jax_engine import JaxEngine
from seqjax.inference.opening import SequifierOnnxEngine, open_engine
from seqjax.interop.names import to_sequifier
from seqjax.windows.windows import Batch
from tests.batches import batch_of
from tests.models import card_of, random_model
from tests.reference import PROJECT_CASES, reference_case

SCHEMA = Schema(
    n_classes={"item": 5},
    categorical_inputs=("item",),
    real_inputs=("price",),
    targets={"price": "real", "item": "categorical"},
    seq_length=4,
)
SPEC = ModelSpec(
    initial_embedding_dim=8,
    dim_model=8,
    n_head=2,
    dim_feedforward=8,
    num_layers=1,
    prediction_length=2,
    feature_embedding_dims={"item": 6, "price": 2},
)


def make_sample(rows: int) -> Batch:
    rng = np.random.default_rng(2)
    columns = {
        "item": rng.integers(0, 5, (rows, 5)).astype(np.int32),
        "price": rng.normal(size=(rows, 5)).astype(np.float32),
    }
    return batch_of(columns, rng.integers(0, 5, rows).astype(np.int32))


def _no_description(kind: ModelKind) -> ModelCard:
    raise AssertionError(f"asked for the card of a {kind} model that has one")


@pytest.fixture(scope="module", params=["generative", "embedding"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """One masked model as a torch file in JAX, and as a graph in onnxruntime."""
    folder = tmp_path_factory.mktemp("models")
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC).of_kind(request.param)
    write_pt(folder / "x.pt", params=params, card=card)
    write_onnx(folder / "x.onnx", params=params, graphdef=graphdef, card=card, sample=make_sample(3))
    return open_engine(folder / "x.pt", _no_description), open_engine(folder / "x.onnx", _no_description)


def test_files_with_a_card_need_no_other(pair: tuple[Engine, Engine]) -> None:
    ours, graph = pair
    assert isinstance(ours, JaxEngine)
    assert isinstance(graph, OnnxEngine)
    assert ours.card == graph.card


@pytest.mark.parametrize("rows", [8, 1, 20])
def test_every_batch_size_gives_what_the_graph_gives(pair: tuple[Engine, Engine], rows: int) -> None:
    sample = make_sample(rows)
    inputs = {name: values[:, :-1] for name, values in sample.columns.items()}
    valid = np.arange(4) >= sample.padding[:, None]
    found, expected = (engine.predict(inputs, valid) for engine in pair)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_a_smaller_batch_is_filled_up_unless_it_is_far_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[int] = []

    def recorded(graphdef: object, card: ModelCard, **options: object) -> Callable[..., tuple[jax.Array]]:
        def forward(params: object, item: jax.Array, *rest: jax.Array) -> tuple[jax.Array]:
            traced.append(len(item))
            return (item[:, None, :1].astype(np.float32),)

        return forward

    monkeypatch.setattr(jax_engine, "forward_function", recorded)
    card = card_of(SCHEMA, SPEC).model_copy(update={"outputs": {"price": "price_value"}})
    _, params = random_model(SCHEMA, SPEC, seed=3)
    engine = JaxEngine(to_sequifier(params, SCHEMA, SPEC), card)
    for rows in (16, 16, 9, 4, 3, 3, 2, 17):
        inputs = {name: values[:, :-1] for name, values in make_sample(rows).columns.items()}
        outputs = engine.predict(inputs, np.ones((rows, 4), np.bool_))
        assert outputs["price"][:, 0, 0].tolist() == inputs["item"][:, 0].tolist()
    assert traced == [16, 3, 17]


ON_TWO_DEVICES = """
import sys
from pathlib import Path
import jax, numpy as np
from seqjax.inference.opening import open_engine
folder = Path(sys.argv[1])
engine = open_engine(folder / "x.pt", lambda kind: None, distributed=True)
assert jax.device_count() == 2
for rows in (7, 1):
    with np.load(folder / f"{rows}.npz") as arrays:
        found = engine.predict({name: arrays[name] for name in ("item", "price")}, arrays["valid"])
    np.savez(folder / f"{rows}-found.npz", **found)
"""


def test_a_batch_shared_among_devices_gives_what_one_gives(tmp_path: Path) -> None:
    _, params = random_model(SCHEMA, SPEC, seed=3)
    write_pt(tmp_path / "x.pt", params=params, card=card_of(SCHEMA, SPEC))
    engine = open_engine(tmp_path / "x.pt", _no_description)
    expected = {}
    for rows in (7, 1):
        inputs = {name: values[:, :-1] for name, values in make_sample(rows).columns.items()}
        valid = np.ones((rows, 4), np.bool_)
        np.savez(tmp_path / f"{rows}.npz", valid=valid, item=inputs["item"], price=inputs["price"])
        expected[rows] = engine.predict(inputs, valid)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, cwd=root)
    for rows, outputs in expected.items():
        with np.load(tmp_path / f"{rows}-found.npz") as found:
            for name, values in outputs.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module", params=["pt", "onnx"])
def droppable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained with dropout, in a file that can drop."""
    path = tmp_path_factory.mktemp("models") / f"x.{request.param}"
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC).model_copy(update={"dropout": 0.2})
    if request.param == "pt":
        write_pt(path, params=params, card=card.of_kind("generative"))
    else:
        described = card.of_kind("generative", live_dropout=True)
        write_onnx(path, params=params, graphdef=graphdef, card=described, sample=make_sample(3))
    return path


def test_a_model_drops_anew_at_every_call_and_alike_by_seed(droppable: Path) -> None:
    sample = make_sample(6)
    inputs = {name: values[:, :-1] for name, values in sample.columns.items()}
    valid = np.ones((6, 4), np.bool_)

    def prices(seed: int | None, calls: int = 3) -> np.ndarray:
        engine = open_engine(droppable, _no_description, dropout_seed=seed)
        return np.stack([engine.predict(inputs, valid)["price"][:, 0, 0] for _ in range(calls)])

    still, dropped = prices(None), prices(1)
    assert (still == still[0]).all()
    assert (np.diff(dropped, axis=0) != 0).all()
    np.testing.assert_array_equal(prices(1), dropped)
    assert (prices(2) != dropped).any()


def test_both_engines_drop_with_the_same_spread(tmp_path: Path) -> None:
    """The spread of a real target over passes of 20 % dropout, and its mean, are the same in both."""
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC).model_copy(update={"dropout": 0.2})
    write_pt(tmp_path / "x.pt", params=params, card=card.of_kind("generative"))
    described = card.of_kind("generative", live_dropout=True)
    write_onnx(tmp_path / "x.onnx", params=params, graphdef=graphdef, card=described, sample=make_sample(3))
    rows = 4000
    inputs = {
        name: np.repeat(values[:1, :-1], rows, axis=0) for name, values in make_sample(1).columns.items()
    }
    found = [
        open_engine(tmp_path / f"x.{suffix}", _no_description, dropout_seed=5).predict(
            inputs, np.ones((rows, 4), np.bool_)
        )["price"][:, 0, 0]
        for suffix in ("pt", "onnx")
    ]
    means, spreads = [float(values.mean()) for values in found], [float(values.std()) for values in found]
    assert spreads[0] > 0.05
    assert means[0] == pytest.approx(means[1], abs=5 * spreads[0] / rows**0.5)
    assert spreads[0] == pytest.approx(spreads[1], rel=0.08)


def test_a_graph_without_dropout_cannot_drop(tmp_path: Path) -> None:
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC)
    write_onnx(tmp_path / "x.onnx", params=params, graphdef=graphdef, card=card, sample=make_sample(3))
    with pytest.raises(ArtifactError, match="was exported without dropout"):
        open_engine(tmp_path / "x.onnx", _no_description, dropout_seed=1)


@pytest.mark.parametrize("device", ["mps", "cuda:x", "gpu", "cpu:99"])
def test_unknown_devices_are_refused(tmp_path: Path, device: str) -> None:
    _, params = random_model(SCHEMA, SPEC, seed=3)
    write_pt(tmp_path / "x.pt", params=params, card=card_of(SCHEMA, SPEC))
    with pytest.raises(ConfigError, match=f"device: must be auto, cpu, cuda or cuda:N .found '{device}'"):
        open_engine(tmp_path / "x.pt", _no_description, device=device)


def test_parameters_of_another_model_are_refused(tmp_path: Path) -> None:
    _, params = random_model(SCHEMA, SPEC, seed=3)
    write_pt(tmp_path / "x.pt", params=params, card=card_of(SCHEMA, SPEC))
    deeper = card_of(SCHEMA, SPEC.model_copy(update={"num_layers": 2}))
    with pytest.raises(ArtifactError, match=r"missing: layers\.1"):
        JaxEngine(read_pt(tmp_path / "x.pt").parameters, deeper)


@pytest.mark.parametrize("name", PROJECT_CASES)
@pytest.mark.parametrize("kind", ["generative", "embedding"])
def test_sequifiers_own_files_compute_what_sequifier_computed(
    shared: Path, name: str, kind: ModelKind
) -> None:
    case = reference_case(shared, name)
    card = card_of(case.schema, case.spec).of_kind(kind)
    asked = []

    def describe(found: ModelKind) -> ModelCard:
        asked.append(found)
        return card

    stem = case.weights.stem.replace("best-", "best-embedding-") if kind == "embedding" else case.weights.stem
    engines = [open_engine(case.weights.with_name(stem + suffix), describe) for suffix in (".pt", ".onnx")]
    assert [type(engine) for engine in engines] == [JaxEngine, SequifierOnnxEngine]
    assert asked == [kind, kind]
    with np.load(case.outputs) as arrays:
        inputs = {column: arrays[f"in__{column}"] for column in case.schema.inputs}
        keys = {"embedding": "embed"} if kind == "embedding" else {key: f"out__{key}" for key in card.outputs}
        expected = {target: arrays[key].swapaxes(0, 1) for target, key in keys.items()}
    for engine in engines:
        for rows in (16, 5, 23) if isinstance(engine, SequifierOnnxEngine) else (16, 5):
            chosen = np.arange(rows) % 16
            outputs = engine.predict(
                {column: values[chosen] for column, values in inputs.items()},
                np.ones((rows, case.schema.seq_length), np.bool_),
            )
            for target, values in expected.items():
                assert outputs[target].shape == (rows, *values.shape[1:])
                np.testing.assert_allclose(outputs[target], values[chosen], rtol=1e-5, atol=1e-5)


def test_a_graph_with_other_ends_is_refused(shared: Path) -> None:
    case = reference_case(shared, "K")
    other = card_of(reference_case(shared, "M").schema, reference_case(shared, "M").spec)
    with pytest.raises(
        ArtifactError, match=r"4 inputs and 2 outputs, but the training configuration says 1 and 1"
    ):
        open_engine(case.weights.with_suffix(".onnx"), lambda kind: other.of_kind(kind))
