"""Sequifier's program trains on the splits that we write, those with history too.

Needs sequifier 1.1 in an environment of its own, whose folder the variable SEQJAX_PEER names.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from seqjax.commands.preprocess import preprocess
from seqjax.config.load import as_config
from seqjax.config.preprocess import PreprocessConfig


@pytest.fixture(scope="module")
def peer() -> Path:
    environment = os.environ.get("SEQJAX_PEER")
    if not environment:
        pytest.skip("SEQJAX_PEER does not name an environment that holds sequifier 1.1")
    return Path(environment) / "bin" / "sequifier"


@pytest.mark.parametrize("write_format", ["csv", "parquet", "pt"])
def test_sequifier_trains_on_splits_with_history(
    peer: Path, shared: Path, tmp_path: Path, write_format: str
) -> None:
    golden = shared / "golden" / "project"
    (tmp_path / "data").mkdir()
    (tmp_path / "configs").mkdir()
    shutil.copy(golden / "data" / "shop.csv", tmp_path / "data")
    values = yaml.safe_load((golden / "configs" / "preprocess_shop.yaml").read_text())
    values |= {"project_root": str(tmp_path), "data_path": str(tmp_path / "data" / "shop.csv")}
    values |= {"write_format": write_format, "merge_output": write_format != "pt", "padding": "zeros"}
    metadata = preprocess(as_config(PreprocessConfig, values))
    assert metadata.history
    train = yaml.safe_load((golden / "configs" / "train_K.yaml").read_text())
    train |= {"read_format": write_format, "project_root": str(tmp_path), "export_onnx": False}
    path = tmp_path / "configs" / "train.yaml"
    path.write_text(yaml.safe_dump(train, sort_keys=False))
    command = [str(peer), "train", "--config-path", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "models").glob("sequifier-K-best-*.pt"))
