"""Sequifier's project runs through unchanged, with the defaults here, and with what only training needs."""

import shutil
from pathlib import Path

import pytest
import yaml

import seqjax
from tests.commands.test_infer_reference import assert_results


@pytest.fixture
def project(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    golden = shared / "golden" / "project"
    unused = shutil.ignore_patterns("*-split*", "outputs", "forward")
    shutil.copytree(golden, tmp_path / "project", ignore=unused)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_it_runs_through_with_the_defaults(project: Path) -> None:
    metadata = seqjax.preprocess("configs/preprocess_shop.yaml")
    assert (metadata.history, metadata.fit_on) == (True, "train")
    result = seqjax.train("configs/train_K.yaml")
    assert seqjax.infer("configs/infer_K_plain.yaml", {"model_path": str(result.best[0])})


def test_its_models_do_not_need_their_training(project: Path, shared: Path) -> None:
    golden = shared / "golden" / "project"
    shutil.copy(golden / "data" / "shop-split2.parquet", project / "data")
    path = project / "configs" / "train_K.yaml"
    values = yaml.safe_load(path.read_text())
    values["training_spec"] |= {
        "optimizer": {"name": "QHAdam", "nus": [0.7, 1.0]},
        "layer_autocast": None,
        "layer_type_dtypes": {"linear": "float64"},
    }
    values |= {"categorical_columns": ["item", "store"], "real_columns": ["price", "volume"]}
    path.write_text(yaml.safe_dump(values))
    written = seqjax.infer("configs/infer_K_plain.yaml")
    assert_results(project, [project / file for file in written], golden / "outputs" / "K_plain")


def test_its_configurations_train(project: Path) -> None:
    seqjax.preprocess("configs/preprocess_shop.yaml")
    values = yaml.safe_load((project / "configs" / "train_K.yaml").read_text())
    values["training_spec"] |= {"optimizer": {"name": "QHAdam", "nus": [0.7, 1.0]}, "layer_autocast": None}
    values["model_spec"].pop("feature_embedding_dims")
    values |= {"categorical_columns": ["item", "store"], "real_columns": ["price", "volume"]}
    assert seqjax.train(values).best
