"""Parameters of one model as the start of another."""

from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import pytest

from seqjax.artifacts.checkpoints import save_checkpoint
from seqjax.artifacts.layout import Layout, Place
from seqjax.artifacts.model_files import write_pt
from seqjax.artifacts.warm_start import warm_start
from seqjax.config.model import ModelSpec
from seqjax.config.schema import Schema
from seqjax.errors import ArtifactError
from seqjax.interop.names import from_sequifier
from seqjax.interop.torch_files import read_torch_file, write_torch_file
from seqjax.model import functional
from tests.models import card_of, random_model
from tests.reference import reference_case

SCHEMA = Schema(
    n_classes={"item": 5, "shop": 4},
    categorical_inputs=("item", "shop"),
    real_inputs=("price",),
    targets={"item": "categorical", "price": "real"},
    seq_length=6,
)
SPEC = ModelSpec(
    initial_embedding_dim=8,
    feature_embedding_dims={"item": 3, "shop": 2, "price": 3},
    dim_model=8,
    n_head=2,
    dim_feedforward=8,
    num_layers=1,
)


def equal(one, other) -> bool:
    """Whether two trees are the same to the bit."""
    same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), one, other)
    return all(jax.tree.leaves(same))


@pytest.fixture
def trained(tmp_path: Path):
    """A torch file, and the parameters in it."""
    _, params = random_model(SCHEMA, SPEC, seed=1)
    write_pt(tmp_path / "x.pt", params=params, card=card_of(SCHEMA, SPEC))
    return tmp_path / "x.pt", params


def test_a_torch_file_is_taken_whole(trained) -> None:
    path, params = trained
    _, new = functional.init(SCHEMA, SPEC, seed=2)
    found, lines = warm_start(new, path, SCHEMA, strict=True)
    assert equal(found, params)
    assert lines == [f"{len(jax.tree.leaves(params))} of {len(jax.tree.leaves(params))} parameters"]
    assert not equal(new, params)


def test_a_file_of_sequifier_is_taken(shared: Path) -> None:
    case = reference_case(shared, "B")
    _, new = functional.init(case.schema, case.spec, seed=2)
    found, _ = warm_start(new, case.weights, case.schema, strict=True)
    content = read_torch_file(case.weights)["model_state_dict"]
    assert equal(found, from_sequifier(content, new, case.schema))


def test_a_checkpoint_gives_its_best_parameters(tmp_path: Path) -> None:
    (_, best), (_, last) = (random_model(SCHEMA, SPEC, seed=seed) for seed in (1, 2))
    info = {"schema": SCHEMA.model_dump(mode="json"), "config": {"model_spec": SPEC.model_dump(mode="json")}}
    tree = jax.tree.map(np.asarray, ({"params": last}, best, {"report": np.zeros(1)}))
    path = save_checkpoint(Layout(tmp_path, "demo"), Place(3), tree, info)
    _, new = functional.init(SCHEMA, SPEC, seed=3)
    assert equal(warm_start(new, path, SCHEMA, strict=True)[0], best)


def test_columns_are_found_by_name_and_what_differs_is_told(trained) -> None:
    path, params = trained
    schema = SCHEMA.model_copy(
        update={
            "n_classes": {"shop": 9, "kind": 3, "item": 5},
            "categorical_inputs": ("shop", "kind", "item"),
            "real_inputs": (),
            "targets": {"item": "categorical"},
        }
    )
    spec = SPEC.model_copy(
        update={"feature_embedding_dims": {"item": 3, "shop": 2, "kind": 3}, "num_layers": 2}
    )
    _, new = functional.init(schema, spec, seed=2)
    with pytest.raises(ArtifactError) as error:
        warm_start(new, path, schema, strict=True)
    assert "not in the file: encoder.kind.weight" in str(error.value)
    assert "warm_start_strict: false" in str(error.value)
    found, lines = warm_start(new, path, schema, strict=False)
    assert equal(found["encoder"]["2"], params["encoder"]["0"])
    assert equal(found["encoder"]["0"], new["encoder"]["0"])
    assert equal(found["layers"]["0"], params["layers"]["0"])
    assert equal(found["layers"]["1"], new["layers"]["1"])
    text = "\n".join(lines)
    assert "of another shape there: encoder.shop.weight ((4, 2) there, (9, 2) here)" in text
    assert "only in the file: encoder.price.weight" in text


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    _, new = functional.init(SCHEMA, SPEC, seed=2)
    with pytest.raises(ArtifactError, match=r"is a graph, which does not name its parameters. Name a .pt"):
        warm_start(new, tmp_path / "x.onnx", SCHEMA, strict=True)
    write_torch_file(tmp_path / "y.pt", {"model_state_dict": OrderedDict(other=np.zeros(2, np.float32))})
    with pytest.raises(ArtifactError, match=r"0 of 24 parameters; .* Name another file"):
        warm_start(new, tmp_path / "y.pt", SCHEMA, strict=False)
