"""The card of a model that does not describe itself."""

import shutil
from pathlib import Path

import pytest
import yaml

from seqjax.config.base import validate
from seqjax.config.infer import InferConfig
from seqjax.errors import ConfigError, DataError
from seqjax.inference.opening import card_from_training


@pytest.fixture
def project(shared: Path, tmp_path: Path) -> Path:
    shutil.copytree(shared / "golden" / "project" / "configs", tmp_path / "configs")
    return tmp_path


def _config(project: Path, **changes: object) -> InferConfig:
    values = yaml.safe_load((project / "configs" / "infer_K_plain.yaml").read_text())
    return validate(InferConfig, {**values, "project_root": str(project), **changes}, "test")


def test_it_comes_from_training_and_its_metadata(project: Path) -> None:
    card = card_from_training(_config(project), Path("x.pt"), "generative")
    assert card.column_schema.inputs == ("item", "store", "price", "volume")
    assert card.column_schema.targets == {"item": "categorical", "price": "real"}
    assert (card.column_schema.seq_length, card.model_spec.prediction_length) == (8, 1)
    assert not card.model_spec.mask_padding
    assert card.valid_mask is None
    assert list(card.id_maps) == ["item", "store"]
    assert list(card.statistics) == ["price", "volume"]
    assert list(card_from_training(_config(project), Path("x.pt"), "embedding").outputs) == ["embedding"]


def test_the_metadata_of_inference_stands_in_where_that_of_training_is_gone(project: Path) -> None:
    expected = card_from_training(_config(project), Path("x.pt"), "generative")
    metadata = project / "configs" / "metadata_configs"
    (metadata / "shop.json").rename(metadata / "other.json")
    found = card_from_training(
        _config(project, metadata_config_path="configs/metadata_configs/other.json"),
        Path("x.pt"),
        "generative",
    )
    assert found == expected
    with pytest.raises(DataError, match=r"shop\.json does not exist"):
        card_from_training(_config(project, metadata_config_path=None), Path("x.pt"), "generative")


def test_a_missing_configuration_is_asked_for(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"training_config_path: .*no\.yaml does not exist, and x\.pt"):
        card_from_training(
            _config(project, training_config_path="configs/no.yaml"), Path("x.pt"), "generative"
        )


def test_what_only_training_needs_is_not_looked_at(project: Path) -> None:
    path = project / "configs" / "train_K.yaml"
    expected = card_from_training(_config(project), Path("x.pt"), "generative")
    values = yaml.safe_load(path.read_text())
    values |= {"categorical_columns": ["item", "store"], "real_columns": ["price", "volume"], "new": 1}
    values["training_spec"] |= {
        "optimizer": {"name": "Ranger", "k": 6},
        "scheduler": {"name": "CyclicLR"},
        "criterion": {"item": "MultiMarginLoss", "price": "PoissonNLLLoss"},
        "layer_autocast": None,
        "layer_type_dtypes": {"linear": "float64"},
    }
    path.write_text(yaml.safe_dump(values))
    found = card_from_training(_config(project), Path("x.pt"), "generative")
    assert found.model_copy(update={"train_config": {}}) == expected.model_copy(update={"train_config": {}})
