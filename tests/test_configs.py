"""Every YAML that is shipped is read: the templates once filled in, and the recipes as they are."""

import re
from pathlib import Path

import pytest

from seqjax.config.base import closed_section_of
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.hyperparameter_search import HyperparameterSearchConfig
from seqjax.config.infer import InferConfig
from seqjax.config.load import PLACEHOLDERS, load_config
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import parse_yaml
from seqjax.errors import ConfigError

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "seqjax" / "templates"
RECIPES = ROOT / "configs" / "recipes"
MODELS = {
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "infer": InferConfig,
    "evaluate": EvaluateConfig,
    "hyperparameter_search": HyperparameterSearchConfig,
}

FILLED = {
    "preprocess": ["data_path: data/events.csv"],
    "train": [
        "metadata_config_path: configs/metadata_configs/events.json",
        "model_name: first",
        "target_columns: [item]",
        "  item: categorical",
        "    item: CrossEntropyLoss",
    ],
    "infer": [],
    "evaluate": [],
    "hyperparameter_search": [
        "metadata_config_path: configs/metadata_configs/events.json",
        "hp_search_name: first",
        "  - [item]",
        "target_columns: [item]",
        "  item: categorical",
        "    item: CrossEntropyLoss",
    ],
}

# Documented in the table of linked parameters, or needed by every training, but in no table of keys.
SEARCH_KEYS_BESIDES_THE_TABLES = {"feature_embedding_dims", "criterion", "device"}
# Of the search alone, and keys of every training that sequifier's documents leave out.
OWN_SEARCH_KEYS = {
    *("seed", "engine", "read_format", "mask_padding", "scheduler_step_on", "gradient_clip"),
    *("continue_training", "enforce_determinism", "class_share_log_columns", "world_size", "log_to"),
    *("keep_checkpoints", "halving_factor", "halving_min_epochs", "population_size"),
    *("population_runner", "ray_address", "ray_resources", "ray_retries", "label_smoothing", "freeze"),
    *("huber_delta", "smooth_l1_beta", "warm_start", "warm_start_strict", "save_interval_minutes"),
    *("save_interval_steps", "n_classes", "id_maps", "categorical_columns", "real_columns", "min_history"),
    *("baseline_period", "select_on"),
}


def model_of(path):
    """The config model of a file named after its command, such as train.yaml or train-large.yaml."""
    return next(model for name, model in MODELS.items() if path.stem.startswith(name))


def without_comments(text):
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())


def filled(name):
    """A template in which each marked line is replaced by what a user would write there."""
    answers = iter(FILLED[name])
    lines = (TEMPLATES / f"{name}.yaml").read_text().splitlines()
    result = []
    for line in lines:
        if "PLEASE FILL" in line:
            answer = next(answers)
            marked = ("  PLEASE FILL", "    PLEASE FILL", "  - [PLEASE FILL]")
            assert line.startswith((answer.split(":")[0], *marked)), (line, answer)
            line = answer
        result.append(line)
    assert list(answers) == []
    return "\n".join(result)


@pytest.mark.parametrize("name", MODELS)
def test_a_template_is_valid_once_the_marked_words_are_filled_in(tmp_path, name):
    path = tmp_path / "config.yaml"
    path.write_text(filled(name))
    load_config(MODELS[name], path)


@pytest.mark.parametrize("name", [name for name, answers in FILLED.items() if answers])
def test_an_unfilled_template_has_no_other_problems(name):
    with pytest.raises(ConfigError) as caught:
        load_config(MODELS[name], TEMPLATES / f"{name}.yaml")
    assert {problem.message for problem in caught.value.problems} == {"still says PLEASE FILL."}


@pytest.mark.parametrize("name", MODELS)
def test_a_template_shows_every_key(name):
    def check(values, model, where):
        assert set(values) == set(model.model_fields), where
        for key, field in model.model_fields.items():
            section = closed_section_of(field.annotation)
            if section is not None:
                check(values[key], section, key)

    check(parse_yaml(filled(name), name), MODELS[name], name)


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.stem)
def test_marked_words_stand_where_a_value_is_missing(path):
    """A user may search for PLEASE FILL, and may leave what names the example columns."""
    text = path.read_text()
    code = without_comments(text)
    assert ("PLEASE FILL" in code) == bool(FILLED[path.stem])
    assert "PLEASE FILL" not in "".join(re.findall(r"#.*", text))
    assert not any(word in code for word in PLACEHOLDERS[1:])
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("name", ["preprocess", "train", "hyperparameter_search"])
def test_templates_name_the_example_columns(name):
    assert "EXAMPLE_INPUT_COLUMN_NAME" in (TEMPLATES / f"{name}.yaml").read_text()


def test_the_search_template_has_the_documented_keys(shared):
    document = (
        (shared / "seeds" / "sequifier-docs-1.1.0.3.md")
        .read_text()
        .split("# Hyperparameter Search Command")[1]
    )
    documented = set(re.findall(r"^\| `(\w+)` ?\|", document, flags=re.MULTILINE))
    template = parse_yaml(
        (TEMPLATES / "hyperparameter_search.yaml").read_text(), "hyperparameter_search.yaml"
    )
    assert isinstance(template, dict)
    sections = [value for key, value in template.items() if key.endswith("_sampling")]
    keys = {key for key in template if not key.endswith("_sampling")}.union(*sections)
    assert keys == documented | SEARCH_KEYS_BESIDES_THE_TABLES | OWN_SEARCH_KEYS


@pytest.mark.parametrize(
    "path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(RECIPES))
)
def test_a_recipe_is_valid(path):
    load_config(model_of(path), path)
