"""Model files: what training asks for is written, checked, and found again."""

import logging
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from seqjax.artifacts import model_files
from seqjax.artifacts.card import ModelCard, describe_run
from seqjax.artifacts.layout import Layout
from seqjax.artifacts.model_files import export_models, graph_feed, resolve_model_path
from seqjax.config.metadata import Metadata
from seqjax.config.resolve import resolve_schema
from seqjax.config.train import TrainConfig
from seqjax.errors import ArtifactError
from seqjax.interop.onnx_session import open_session
from seqjax.windows.windows import Batch
from tests.batches import batch_of
from tests.models import random_model, read_card

METADATA = Metadata.model_validate(
    {
        "n_classes": {"item": 5, "unused": 9},
        "id_maps": {"item": {"a": 2, "b": 3, "c": 4}, "unused": {"z": 2}},
        "split_paths": ["data/x-split0.parquet"],
        "column_types": {"item": "Int64", "price": "Float64", "unused": "Int64"},
        "selected_columns_statistics": {"price": {"std": 2.0, "mean": 10.0}},
    }
)


def config(**changes) -> TrainConfig:
    values = {
        "project_root": ".",
        "metadata_config_path": "configs/metadata_configs/x.json",
        "model_name": "demo",
        "input_columns": ["item", "price"],
        "target_columns": ["price", "item"],
        "target_column_types": {"item": "categorical", "price": "real"},
        "seq_length": 4,
        "inference_batch_size": 8,
        "export_generative_model": True,
        "export_embedding_model": True,
        "model_spec": {
            "initial_embedding_dim": 8,
            "dim_model": 8,
            "n_head": 2,
            "dim_feedforward": 8,
            "num_layers": 1,
            "feature_embedding_dims": {"item": 6, "price": 2},
        },
        "training_spec": {
            "device": "cpu",
            "epochs": 1,
            "save_interval_epochs": 1,
            "batch_size": 4,
            "learning_rate": 0.001,
            "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
        },
    }
    return TrainConfig.model_validate({**values, **changes})


SCHEMA = resolve_schema(config(), METADATA)


def card(**training) -> ModelCard:
    return describe_run(config(), SCHEMA, METADATA, **training)


def sample(rows: int) -> Batch:
    rng = np.random.default_rng(2)
    padding = rng.integers(0, 5, rows).astype(np.int32)
    columns = {
        "item": rng.integers(0, 5, (rows, 5)).astype(np.int32),
        "price": rng.normal(size=(rows, 5)).astype(np.float32),
    }
    return batch_of(columns, padding)


def export(root: Path, settings: TrainConfig, params=None, rows: int = 6) -> list[Path]:
    graphdef, drawn = random_model(SCHEMA, settings.model_spec, seed=4)
    return export_models(
        Layout(root, "demo"),
        params=drawn if params is None else params(drawn),
        graphdef=graphdef,
        card=card(best_epoch=2, last_epoch=7, validation_loss=0.5),
        config=settings,
        which="best",
        epoch=7,
        sample=sample(rows),
    )


def test_both_kinds_are_written_checked_and_described(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="seqjax"):
        paths = export(tmp_path, config())
    names = ["sequifier-demo-best-7.onnx", "sequifier-demo-best-embedding-7.onnx"]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [f"models/{name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == sorted(names)
    for path, message in zip(paths, caplog.messages, strict=True):
        assert message.startswith(f"exported {path}, largest difference from JAX ")
        assert float(message.rsplit(" ", 1)[1]) <= 1e-5
    generative, embedding = map(read_card, paths)
    assert generative is not None
    assert embedding is not None
    assert generative == card(best_epoch=2, last_epoch=7, validation_loss=0.5).of_kind("generative")
    assert (embedding.kind, embedding.outputs) == ("embedding", {"embedding": "embedding"})
    assert generative.id_maps == {"item": {"a": 2, "b": 3, "c": 4}}
    assert list(generative.statistics) == ["price"]
    assert generative.train_config["model_spec"]["dim_feedforward"] == 8
    assert {"seqjax", "jax", "flax", "jax2onnx", "onnx"} == set(generative.versions)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"export_generative_model": False}, 1),
        ({"export_embedding_model": False}, 1),
        ({"export_onnx": False}, 0),
        ({"export_onnx": False, "export_pt": True}, 2),
        ({"export_generative_model": False, "export_pt": True}, 2),
    ],
)
def test_only_what_the_configuration_asks_for_is_written(tmp_path: Path, changes: dict, count: int) -> None:
    assert len(export(tmp_path, config(**changes), rows=1)) == count
    assert len(list(tmp_path.glob("models/*"))) == count


def test_parameters_of_low_precision_are_exported_as_float32(tmp_path: Path) -> None:
    def low(params: dict) -> dict:
        return {
            key: low(leaf) if isinstance(leaf, dict) else leaf.astype(jnp.bfloat16)
            for key, leaf in params.items()
        }

    (path,) = export(tmp_path, config(export_embedding_model=False), low)
    held = {tensor.data_type for tensor in onnx.load(path).graph.initializer if tensor.dims}
    assert held <= {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
    }


def test_parameters_that_are_not_finite_leave_no_file(tmp_path: Path) -> None:
    def broken(params: dict) -> dict:
        weight = params["decoder"]["0"]["weight"]
        return {
            **params,
            "decoder": {**params["decoder"], "0": {**params["decoder"]["0"], "weight": weight * np.nan}},
        }

    with pytest.raises(ArtifactError, match=r"sequifier-demo-best-7\.onnx.*differs from JAX by nan"):
        export(tmp_path, config(), broken)
    assert not list(tmp_path.glob("models/*"))


def test_a_wrong_graph_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = model_files.export_onnx

    def off_by_a_little(path, forward, **rest):
        genuine(path, lambda *arrays: [values + 1e-3 for values in forward(*arrays)], **rest)

    monkeypatch.setattr(model_files, "export_onnx", off_by_a_little)
    with pytest.raises(ArtifactError, match=r"differs from JAX by .*e-04, more than 1e-04|by 1\.0e-03"):
        export(tmp_path, config())
    assert not list(tmp_path.glob("models/*"))


def test_masked_windows_of_the_sample_reach_the_graph(tmp_path: Path) -> None:
    path, _ = export(tmp_path, config())
    inputs = {name: values[:, :-1] for name, values in sample(6).columns.items()}
    one = np.arange(4) >= np.full((6, 1), 2)
    session, held = open_session(path), read_card(path)
    assert held is not None
    full, masked = (
        np.asarray(session.run(None, graph_feed(held, inputs, mask))[0]) for mask in (np.ones_like(one), one)
    )
    assert np.abs(full - masked).max() > 1e-3


@pytest.mark.parametrize(
    "text",
    [
        "models/sequifier-demo-best-7.onnx",
        "models/sequifier-demo-best-7",
        "sequifier-demo-best-7.onnx",
        "sequifier-demo-best-7",
    ],
)
def test_models_are_found_under_the_project(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models" / "sequifier-demo-best-7.onnx"
    path.parent.mkdir()
    path.touch()
    assert resolve_model_path(tmp_path, text) == path
    assert resolve_model_path("elsewhere", str(path)) == path


def test_a_missing_model_is_reported_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"There is no model in .*models: run seqjax train first"):
        resolve_model_path(tmp_path, "models/x.onnx")
    (tmp_path / "models").mkdir()
    for epoch in (5, 10):
        (tmp_path / "models" / f"sequifier-demo-best-{epoch}.onnx").touch()
    with pytest.raises(ArtifactError, match=r"Did you mean 'models/sequifier-demo-best-10\.onnx'\?"):
        resolve_model_path(tmp_path, "models/sequifier-demo-best-10.pt")


def test_files_that_are_no_models_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    with pytest.raises(ArtifactError, match=r"x\.onnx: there is no such file"):
        read_card(path)
    path.write_text("no model")
    with pytest.raises(ArtifactError, match=r"x\.onnx: onnxruntime cannot load it as a model"):
        read_card(path)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    foreign = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(foreign, path)
    assert read_card(path) is None
    foreign.metadata_props.add(key="seqjax", value='{"kind": "other"}')
    onnx.save(foreign, path)
    with pytest.raises(ArtifactError, match=r"x\.onnx: its description of itself cannot be read by seqjax"):
        read_card(path)


def test_best_and_last_are_the_newest_where_no_file_says_its_loss(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    names = [
        "sequifier-a-best-2.onnx",
        "sequifier-a-best-embedding-2.onnx",
        "sequifier-b-best-1.onnx",
        "sequifier-b-best-1.pt",
        "sequifier-b-last-best-embedding-9.onnx",
        "sequifier-b-best-x.onnx",
        "notes.txt",
    ]
    for age, name in enumerate(names):
        path = tmp_path / "models" / name
        path.touch()
        os.utime(path, (age, age))
    assert resolve_model_path(tmp_path, "best").name == "sequifier-b-best-1.onnx"
    assert resolve_model_path(tmp_path, "best", model_name="a").name == "sequifier-a-best-2.onnx"
    with pytest.raises(ArtifactError, match="no generative model that is the best one of the run 'aa'"):
        resolve_model_path(tmp_path, "best", model_name="aa")
    found = resolve_model_path(tmp_path, "best", kind="embedding")
    assert found.name == "sequifier-b-last-best-embedding-9.onnx"
    with pytest.raises(ArtifactError, match=r"no such model file \(model_path: last\)"):
        resolve_model_path(tmp_path, "last")
