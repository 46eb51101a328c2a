"""`infer` on ONNX models where jax, and what comes with it, is missing."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from seqjax.artifacts.model_files import write_onnx, write_pt
from tests.inference.test_engines import SCHEMA, SPEC, make_sample
from tests.models import card_of, random_model

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys

class Missing:
    packages = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "jax2onnx", "onnx"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from importlib import util
found = util.find_spec
util.find_spec = lambda name, package=None: None if name in Missing.packages else found(name, package)

from seqjax.cli import main
code = main(sys.argv[1:])
assert not Missing.packages & set(sys.modules)
sys.exit(code)
"""
TABLE = "sequenceId,itemPosition,item,price\n1,0,item 2,100\n1,1,item 3,105\n2,0,item 4,90\n"


def infer(root: Path, model: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM, "infer", "--config-path", str(root / "infer.yaml")]
    return subprocess.run([*words, "-mp", model], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC)
    (tmp_path / "models").mkdir()
    write_pt(tmp_path / "models" / "x.pt", params=params, card=card)
    write_onnx(
        tmp_path / "models" / "x.onnx", params=params, graphdef=graphdef, card=card, sample=make_sample(3)
    )
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "infer.yaml").write_text(
        f"project_root: {tmp_path}\nmodel_path: x.onnx\nmodel_type: generative\ndata_path: table.csv\n"
        "forecast_from: latest\noutput_probabilities: true\n"
    )
    return tmp_path


def test_jax_may_be_missing(project: Path) -> None:
    done = infer(project, "x.onnx")
    assert done.returncode == 0, done.stderr
    rows = pl.read_csv(project / "outputs" / "predictions" / "x-predictions.csv")
    assert rows["sequenceId"].unique(maintain_order=True).to_list() == [1, 2]
    refused = infer(project, "x.pt")
    assert refused.returncode == 1
    assert "x.pt is run by jax, which is not installed. Install it (pip install seqjax)" in refused.stderr
