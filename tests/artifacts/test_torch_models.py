"""Models as torch files: sequifier's names and order, our card, the same parameters bit by bit."""

from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.artifacts.card import CARD_KEY
from seqjax.artifacts.model_files import read_pt, write_pt
from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, from_sequifier
from seqjax.interop.torch_files import read_torch_file, write_torch_file
from seqjax.model.functional import abstract
from tests.architectures import architectures
from tests.models import card_of, random_model
from tests.reference import PROJECT_CASES, reference_case


@pytest.mark.parametrize("name", [*PROJECT_CASES, "A", "B", "C", "D"])
@pytest.mark.parametrize("kind", ["generative", "embedding"])
def test_files_are_as_sequifiers(shared: Path, tmp_path: Path, name: str, kind) -> None:
    case = reference_case(shared, name)
    _, params = random_model(case.schema, case.spec, seed=1)
    card = card_of(case.schema, case.spec).of_kind(kind)
    write_pt(tmp_path / "x.pt", params=params, card=card)
    content, expected = read_torch_file(tmp_path / "x.pt"), read_torch_file(case.weights)
    assert list(content) == [*expected, CARD_KEY]
    assert content["export_with_dropout"] is False
    prefix = EMBEDDING_PREFIX if kind == "embedding" else ""
    found, reference = content["model_state_dict"], expected["model_state_dict"]
    assert list(found) == [f"{prefix}{key}" for key in reference]
    for key, values in reference.items():
        assert (found[f"{prefix}{key}"].shape, found[f"{prefix}{key}"].dtype) == (values.shape, values.dtype)
    model = read_pt(tmp_path / "x.pt")
    assert (model.kind, model.card) == (kind, card)
    restored = from_sequifier(model.parameters, abstract(case.schema, case.spec)[1], case.schema)
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other, strict=True), restored, params)


def test_narrow_parameters_are_written_as_float32(tmp_path: Path) -> None:
    architecture = architectures()[0]
    _, params = random_model(architecture.schema, architecture.spec, seed=1)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    write_pt(tmp_path / "x.pt", params=narrow, card=card_of(architecture.schema, architecture.spec))
    found = from_sequifier(read_pt(tmp_path / "x.pt").parameters, params, architecture.schema)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.float32)), narrow)
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other, strict=True), found, wide)


def test_a_file_says_that_it_is_for_inference_with_dropout(tmp_path: Path) -> None:
    architecture = architectures()[0]
    _, params = random_model(architecture.schema, architecture.spec, seed=1)
    card = card_of(architecture.schema, architecture.spec)
    write_pt(tmp_path / "x.pt", params=params, card=card, with_dropout=True)
    assert read_torch_file(tmp_path / "x.pt")["export_with_dropout"] is True


def test_torch_loads_the_file(shared: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    case = reference_case(shared, "L")
    _, params = random_model(case.schema, case.spec, seed=1)
    write_pt(tmp_path / "x.pt", params=params, card=card_of(case.schema, case.spec))
    state = torch.load(tmp_path / "x.pt", weights_only=True)["model_state_dict"]
    original = torch.load(case.weights, weights_only=True)["model_state_dict"]
    assert type(state) is OrderedDict
    assert [(key, value.shape) for key, value in state.items()] == [
        (key, value.shape) for key, value in original.items()
    ]


def test_sequifiers_own_files_have_no_card(shared: Path) -> None:
    for name in ("K", "N"):
        weights = reference_case(shared, name).weights
        assert read_pt(weights)[1:] == (None, "generative")
        embedding = weights.with_name(weights.name.replace("best-", "best-embedding-"))
        assert read_pt(embedding)[1:] == (None, "embedding")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no model"),
        ({}, "holds no model"),
        ({"model_state_dict": {}}, "holds no model"),
        ({"model_state_dict": {"a": 1}, CARD_KEY: 3}, "holds no model"),
        ({"model_state_dict": {"a": 1}, CARD_KEY: "{"}, "its description of itself cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    write_torch_file(tmp_path / "x.pt", content)
    with pytest.raises(ArtifactError, match=rf"x\.pt.*{message}"):
        read_pt(tmp_path / "x.pt")
