"""Torch files that we export give sequifier's program the results that they give us.

Needs sequifier 1.1 in an environment of its own, whose folder the variable SEQJAX_PEER names.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from seqjax.artifacts.model_files import write_pt
from seqjax.commands.infer import infer
from seqjax.config.infer import InferConfig
from seqjax.config.load import load_config
from seqjax.config.resolve import load_metadata
from tests.commands.test_infer_reference import assert_results
from tests.models import card_of, random_model
from tests.reference import PROJECT_CASES, reference_case


@pytest.fixture(scope="module")
def peer() -> Path:
    environment = os.environ.get("SEQJAX_PEER")
    if not environment:
        pytest.skip("SEQJAX_PEER does not name an environment that holds sequifier 1.1")
    return Path(environment) / "bin" / "sequifier"


@pytest.mark.parametrize("run", ["plain", "embedding"])
@pytest.mark.parametrize("name", PROJECT_CASES)
def test_sequifier_computes_the_same_with_our_files(
    peer: Path, shared: Path, tmp_path: Path, name: str, run: str
) -> None:
    golden = shared / "golden" / "project"
    for folder in ("configs", "data"):
        shutil.copytree(golden / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.csv"))
    (tmp_path / "models").mkdir()
    case = reference_case(shared, name)
    _, params = random_model(case.schema, case.spec, seed=5)
    config = tmp_path / "configs" / f"infer_{name}_{run}.yaml"
    values = yaml.safe_load(config.read_text())
    metadata = load_metadata(tmp_path / values["metadata_config_path"])
    card = card_of(case.schema, case.spec).model_copy(
        update={"id_maps": metadata.id_maps, "statistics": metadata.selected_columns_statistics}
    )
    model = tmp_path / values["model_path"]
    write_pt(model, params=params, card=card.of_kind(values["model_type"]))
    subprocess.run([str(peer), "infer", "--config-path", str(config)], cwd=tmp_path, check=True)
    (tmp_path / "outputs").rename(tmp_path / "reference")
    further = {"project_root": str(tmp_path), "predict_unknown": True}
    written = infer(load_config(InferConfig, config, further))
    assert_results(tmp_path, written, tmp_path / "reference")
