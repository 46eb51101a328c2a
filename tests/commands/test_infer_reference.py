"""Sequifier's models, its own files and exported by us, give its results from its data and configurations."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
import yaml

from seqjax.artifacts.card import ModelCard
from seqjax.artifacts.layout import ModelKind
from seqjax.artifacts.model_files import write_onnx
from seqjax.commands.infer import infer
from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.config.load import load_config
from seqjax.config.resolve import load_metadata
from seqjax.interop.names import from_sequifier
from seqjax.interop.torch_files import read_torch_file
from seqjax.model.functional import abstract
from tests.batches import batch_of
from tests.reference import PROJECT_CASES, reference_case

RUNS = {
    "K": ("plain", "embedding"),
    "L": ("plain", "embedding"),
    "M": ("plain", "embedding", "autoregression"),
    "N": ("plain", "embedding", "autoregression"),
}
RELATIVE = {"predictions": 1e-4, "probabilities": 0, "embeddings": 1e-4}
"""The largest relative difference by kind of result, beyond an absolute one of 1e-5."""
CASES = [(name, run) for name, runs in RUNS.items() for run in runs]
CASES_OF_BOTH_FORMATS = [*CASES, *((name, "pt_input") for name in RUNS)]


@pytest.fixture(scope="module")
def project(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, ModelKind], Path]:
    """A copy of the reference project whose models we export; gives the model of a case."""
    root = tmp_path_factory.mktemp("project")
    golden = shared / "golden" / "project"
    shutil.copytree(golden / "data", root / "data", ignore=shutil.ignore_patterns("*.csv"))
    (root / "models").mkdir()

    @cache
    def export(name: str, kind: ModelKind) -> Path:
        case = reference_case(shared, name)
        graphdef, shapes = abstract(case.schema, case.spec)
        params = from_sequifier(read_torch_file(case.weights)["model_state_dict"], shapes, case.schema)
        metadata = load_metadata(golden / "configs" / "metadata_configs" / f"{PROJECT_CASES[name]}.json")
        card = ModelCard(
            schema=case.schema,
            model_spec=case.spec,
            id_maps=metadata.id_maps,
            statistics=metadata.selected_columns_statistics,
            column_types=metadata.column_types,
        ).of_kind(kind)
        length = case.schema.seq_length
        sample = batch_of(
            {column: np.zeros((2, length + 1), np.float32) for column in case.schema.inputs},
            np.zeros(2, np.int32),
        )
        path = root / "models" / f"sequifier-{name}-best-{'embedding-' if kind == 'embedding' else ''}1.onnx"
        write_onnx(
            path, params=jax.tree.map(jnp.asarray, params), graphdef=graphdef, card=card, sample=sample
        )
        return path

    return export


@pytest.mark.parametrize(("name", "run"), CASES)
def test_results_are_those_of_sequifier(shared: Path, project, name: str, run: str) -> None:
    golden = shared / "golden" / "project"
    model = project(name, "embedding" if run == "embedding" else "generative")
    values = yaml.safe_load((golden / "configs" / f"infer_{name}_{run}.yaml").read_text())
    root = model.parents[1]
    values |= {
        "project_root": str(root),
        "model_path": f"models/{model.name}",
        "metadata_config_path": str(golden / values["metadata_config_path"]),
        "predict_unknown": True,
    }
    written = infer(validate(InferConfig, values, "infer.yaml"))
    assert_results(root, written, golden / "outputs" / f"{name}_{run}")


@pytest.fixture(scope="module")
def whole(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the reference project as sequifier left it."""
    root = tmp_path_factory.mktemp("whole") / "project"
    unused = shutil.ignore_patterns("*.csv", "outputs", "forward")
    shutil.copytree(shared / "golden" / "project", root, ignore=unused)
    return root


@pytest.mark.parametrize("extension", ["pt", "onnx"])
@pytest.mark.parametrize(("name", "run"), CASES_OF_BOTH_FORMATS)
def test_sequifiers_own_files_are_read(
    shared: Path, whole: Path, name: str, run: str, extension: str
) -> None:
    path = whole / "configs" / f"infer_{name}_{run}.yaml"
    model = yaml.safe_load(path.read_text())["model_path"].replace(".pt", f".{extension}")
    written = infer(load_config(InferConfig, path, {"project_root": str(whole), "model_path": model}))
    assert_results(whole, written, shared / "golden" / "project" / "outputs" / f"{name}_{run}")


def test_every_configuration_is_run(shared: Path) -> None:
    there = {path.stem for path in (shared / "golden" / "project" / "configs").glob("infer_*.yaml")}
    assert there == {f"infer_{name}_{run}" for name, run in CASES_OF_BOTH_FORMATS}


def assert_results(root: Path, written: list[Path], reference: Path) -> None:
    expected = sorted(reference.rglob("*.csv"))
    names = [path.relative_to(reference) for path in expected]
    assert sorted(path.relative_to(root / "outputs") for path in written) == names
    for relative, path in zip(names, expected, strict=True):
        difference = RELATIVE[relative.parts[0]]
        assert_same(pl.read_csv(root / "outputs" / relative), pl.read_csv(path), difference)


def assert_same(found: pl.DataFrame, expected: pl.DataFrame, relative: float) -> None:
    """Equal but for rounding; the positions too, which come from the data."""
    assert found.schema == expected.schema
    assert len(found) == len(expected)
    for column in found.columns:
        if found[column].dtype.is_float():
            np.testing.assert_allclose(found[column], expected[column], rtol=relative, atol=1e-5)
        else:
            assert found[column].to_list() == expected[column].to_list()
