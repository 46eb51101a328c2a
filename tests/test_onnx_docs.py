"""The Python example of docs/onnx.md runs as it stands, and says what seqjax says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import polars as pl
import pytest

from seqjax.artifacts.model_files import write_onnx
from seqjax.config.metadata import Statistics
from seqjax.inference.model import load
from tests.inference.test_engines import SCHEMA, SPEC, make_sample
from tests.models import card_of, random_model

DOCS = Path(__file__).parents[1] / "docs" / "onnx.md"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    graphdef, params = random_model(SCHEMA, SPEC, seed=3)
    card = card_of(SCHEMA, SPEC).model_copy(
        update={
            "id_maps": {"item": {"apple": 2, "fig": 3, "pear": 4}},
            "statistics": {"price": Statistics(mean=1.8, std=0.4)},
        }
    )
    write_onnx(path, params=params, graphdef=graphdef, card=card, sample=make_sample(3))
    return path


def test_the_python_example_predicts_what_seqjax_predicts(model: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", code]
    printed = subprocess.run(command, cwd=model.parent, capture_output=True, text=True, check=True).stdout
    table = pl.DataFrame(
        {
            "sequenceId": [1, 1, 1],
            "itemPosition": [0, 1, 2],
            "item": ["apple", "fig", "never seen"],
            "price": [1.5, 2.0, 1.75],
        }
    )
    expected = load(model, project_root=".", model_type="generative").predict(table, forecast_from="latest")
    assert printed == f"next: {expected['item'][-1]} at {expected['price'][-1]:.2f}\n"


def test_versions_and_keys_are_those_of_a_file(model: Path) -> None:
    graph = onnx.load(model)
    (opset,) = (entry.version for entry in graph.opset_import if not entry.domain)
    text = DOCS.read_text()
    assert f"Opset {opset}, IR version {graph.ir_version}" in text
    (entry,) = graph.metadata_props
    described = json.loads(entry.value)
    assert entry.key == "seqjax"
    for key in ("kind", "inputs", "valid_mask", "dropout_input", "outputs", "id_maps", "statistics"):
        assert f"`{key}`" in text
        assert key in described
