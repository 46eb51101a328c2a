"""Continuing windows: one compiled scan, one call a step and a graph in onnxruntime give the same."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.model_files import write_onnx
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.inference.engine import Engine
from seqjax.inference.generate import MOST_STEPS, GenerationCache, generate, steps_at_once
from seqjax.inference.jax_engine import JaxEngine
from seqjax.inference.opening import open_engine
from seqjax.inference.sample import Reader, Reading, Readout
from seqjax.interop.names import to_sequifier
from seqjax.model.distributions import SamplingRule
from tests.batches import batch_of
from tests.models import card_of, random_model

SCHEMA = Schema(
    n_classes={"item": 7, "label": 5},
    categorical_inputs=("item",),
    real_inputs=("price",),
    targets={"price": "real", "label": "categorical", "item": "categorical"},
    seq_length=5,
)
SPEC = ModelSpec(
    initial_embedding_dim=8,
    dim_model=8,
    n_head=2,
    n_kv_heads=1,
    attention_type="mqa",
    dim_feedforward=8,
    num_layers=2,
    positional_encoding="rope",
    feature_embedding_dims={"item": 6, "price": 2},
)
ROWS, STEPS = 7, 9
PADDING = np.array([0, 4, 1, 0, 3, 2, 0])


class ByStep:
    """An engine that only predicts."""

    def __init__(self, engine: Engine) -> None:
        self.card: ModelCard = engine.card
        self._engine = engine

    def predict(self, inputs: Mapping[str, np.ndarray], valid_mask: np.ndarray) -> dict[str, np.ndarray]:
        return self._engine.predict(inputs, valid_mask)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC)
    path = tmp_path_factory.mktemp("model") / "x.onnx"
    columns = {name: np.zeros((2, 6), np.float32) for name in SCHEMA.inputs}
    write_onnx(
        path, params=params, graphdef=graphdef, card=card, sample=batch_of(columns, np.zeros(2, np.int32))
    )
    jax_engine = in_jax()
    graph = open_engine(path, lambda kind: card)
    return {"scan": jax_engine, "step": ByStep(jax_engine), "onnx": graph}


def in_jax(*, distributed: bool = False) -> JaxEngine:
    _, params = random_model(SCHEMA, SPEC, seed=3)
    return JaxEngine(to_sequifier(params, SCHEMA, SPEC), card_of(SCHEMA, SPEC), distributed=distributed)


def windows() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    valid = np.arange(SCHEMA.seq_length) >= PADDING[:, None]
    item = np.where(valid, rng.integers(0, 7, valid.shape), 0).astype(np.int32)
    return {"item": item, "price": np.where(valid, rng.normal(size=valid.shape), 0).astype(np.float32)}, valid


def reader(seed: int = 1) -> Reader:
    rule = SamplingRule(temperature=1.5, top_k=5, top_p=0.95)
    return Reader(
        SCHEMA.target_heads, sampled=["item", "label"], seed=seed, rule=rule, keep_log_probs=["label"]
    )


def run(
    engine: Engine,
    read: Reader,
    *,
    batch_size: int = 64,
    steps: int = STEPS,
    cache: GenerationCache = "exact",
) -> Readout:
    feed = windows()
    first = read(engine.predict(*feed)).values
    own_first = {name: values[:, 0] for name, values in first.items()}
    return generate(engine, feed, own_first, read, steps=steps, batch_size=batch_size, cache=cache)


def assert_alike(found: Readout, expected: Readout) -> None:
    for name, kind in SCHEMA.targets.items():
        assert found.values[name].shape == expected.values[name].shape
        assert found.values[name].dtype == expected.values[name].dtype
        if kind == "real":
            np.testing.assert_allclose(found.values[name], expected.values[name], rtol=1e-4, atol=1e-4)
        else:
            assert found.values[name].tolist() == expected.values[name].tolist()
    assert list(found.log_probs) == ["label"]
    np.testing.assert_allclose(found.log_probs["label"], expected.log_probs["label"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["step", "onnx"])
def test_all_ways_draw_and_predict_the_same(engines: dict[str, Engine], way: str) -> None:
    assert isinstance(engines["scan"], JaxEngine)
    assert not isinstance(engines[way], JaxEngine)
    expected = run(engines["scan"], reader())
    assert expected.values["item"].shape == (ROWS, STEPS)
    assert expected.values["item"].dtype == np.int64
    assert expected.log_probs["label"].shape == (ROWS, STEPS, 5)
    assert len(set(expected.values["item"].ravel().tolist())) > 2
    assert_alike(run(engines[way], reader()), expected)


@pytest.mark.parametrize("way", ["scan", "onnx"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(engines: dict[str, Engine], way: str, batch_size: int) -> None:
    assert_alike(run(engines[way], reader(), batch_size=batch_size), run(engines[way], reader()))


def test_draws_repeat_with_the_seed_alone(engines: dict[str, Engine]) -> None:
    first, again, other = (run(engines["scan"], reader(seed)).values["item"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_a_scan_in_parts_is_a_whole_scan(engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(engines["scan"], reader())
    monkeypatch.setattr("seqjax.inference.generate.MOST_STEPS", 4)
    assert_alike(run(engines["scan"], reader()), expected)


def test_one_compilation_serves_every_batch(
    engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []
    original = Reading.values

    def values(self, outputs, uniforms):
        if not isinstance(outputs["item"], np.ndarray):
            traced.append(len(outputs["item"]))
        return original(self, outputs, uniforms)

    monkeypatch.setattr(Reading, "values", values)
    for seed in (1, 2):
        read = Reader(SCHEMA.target_heads, sampled=["item"], seed=seed, keep_log_probs=["item", "label"])
        run(engines["scan"], read, batch_size=4)
    assert traced == [4]


def test_kept_keys_and_values_are_exact_until_the_window_is_full(engines: dict[str, Engine]) -> None:
    exact, rolling = (run(engines["scan"], reader(), steps=4, cache=cache) for cache in ("exact", "rolling"))
    for name in SCHEMA.targets:
        for row, padding in enumerate(PADDING):
            count = int(min(padding, 4))
            np.testing.assert_allclose(
                rolling.values[name][row, :count], exact.values[name][row, :count], rtol=1e-4, atol=1e-4
            )
    full = np.abs(rolling.log_probs["label"][0] - exact.log_probs["label"][0]).max()
    assert 1e-3 < full < 2


ON_FOUR_DEVICES = """
import sys
from pathlib import Path
import jax, numpy as np
from tests.inference.test_generate import in_jax, reader, run
assert jax.device_count() == 4
engine = in_jax(distributed=True)
for cache in ("exact", "rolling"):
    found = run(engine, reader(), batch_size=3, cache=cache)
    np.savez(Path(sys.argv[1]) / cache, **found.values, log_probs=found.log_probs["label"])
(scan,) = {scan.devices for scan in engine._scans.values()}
assert scan == 4
"""


def test_rows_shared_among_devices_go_on_as_on_one(engines: dict[str, Engine], tmp_path: Path) -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", ON_FOUR_DEVICES, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    for cache in get_args(GenerationCache):
        with np.load(tmp_path / f"{cache}.npz") as arrays:
            values = {name: arrays[name] for name in SCHEMA.targets}
            found = Readout(values, {"label": arrays["log_probs"]})
        assert_alike(found, run(engines["scan"], reader(), cache=cache))


def test_distributions_bound_the_steps_of_a_dispatch() -> None:
    reading = Reading((("item", "categorical"),), kept=("item",))
    assert steps_at_once(reading, {"item": 1000}, rows=2**10, steps=100) == 15
    assert steps_at_once(reading, {"item": 10**6}, rows=2**10, steps=100) == 1
    assert steps_at_once(Reading(()), {}, rows=2**10, steps=MOST_STEPS + 1) == MOST_STEPS // 2 + 1
