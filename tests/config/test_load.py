"""A file and overrides become one config, checked once; paths are anchored at the project."""

from pathlib import Path

import pytest

from seqjax.artifacts.layout import split_path
from seqjax.config.infer import InferConfig
from seqjax.config.load import as_config, load_config, merged, resolve_path, resolve_split
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.train import TrainConfig
from seqjax.config.visualize_training import VisualizeTrainingConfig
from seqjax.errors import ConfigError

PREPROCESS = "project_root: .\ndata_path: data/x.csv\nseq_length: 8\nsplit_ratios: [0.5, 0.5]\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "preprocess.yaml"
    path.write_text(PREPROCESS)
    return path


def message(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    return str(caught.value)


def test_overrides_are_laid_over_the_file_before_it_is_checked(path):
    path.write_text(PREPROCESS + "seed: not a number\n")
    assert load_config(PreprocessConfig, path, {"seed": 3, "seq_length": "16"}).seed == 3
    said = message(load_config, PreprocessConfig, path, {"seq_length": 0})
    assert said == (
        f"{path} with overrides has 2 problems:\n"
        "  seq_length: must be greater than 0 (found 0).\n"
        "  seed: must be a whole number (found 'not a number')."
    )


@pytest.mark.parametrize("held", [{}, {"training_spec": None}, {"training_spec": {"epochs": 1}}])
def test_sections_are_merged_whatever_the_file_holds_there(held):
    result = merged(TrainConfig, held, {"training_spec": {"batch_size": 2}})
    assert result == {"training_spec": {**(held.get("training_spec") or {}), "batch_size": 2}}


def test_other_mappings_are_replaced():
    held = {
        "training_spec": {"optimizer": {"name": "AdamW", "weight_decay": 1}, "criterion": {"a": "MSELoss"}}
    }
    given = {"training_spec": {"optimizer": {"name": "SGD"}, "criterion": {"b": "L1Loss"}}}
    assert merged(TrainConfig, held, given) == given


def test_a_template_word_that_was_left_is_the_problem_of_its_key(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "project_root: .\nmetadata_config_path: m.json\nmodel_name: PLEASE FILL\ntarget_columns: [item]\n"
        "target_column_types:\n  PLEASE FILL: PLEASE FILL\nseq_length: 8\ninference_batch_size: 1\n"
        "export_generative_model: PLEASE FILL\nexport_embedding_model: false\n"
        "input_columns: [EXAMPLE_INPUT_COLUMN_NAME]\n"
        "model_spec: {initial_embedding_dim: 8, dim_model: 8, n_head: 3, dim_feedforward: 8, num_layers: 1}\n"
        "training_spec: {device: cpu, epochs: 1, save_interval_epochs: 1, batch_size: 1, learning_rate: 1e-3,"
        " criterion: {item: MSELoss}}\n"
    )
    assert message(load_config, TrainConfig, path).splitlines()[1:] == [
        "  model_name: still says PLEASE FILL.",
        "  target_column_types: still says PLEASE FILL.",
        "  export_generative_model: still says PLEASE FILL.",
        "  input_columns.0: still says EXAMPLE_INPUT_COLUMN_NAME.",
        "  model_spec.n_head: must divide dim_model (8) (found 3).",
    ]


def test_a_template_word_is_a_problem_where_any_text_would_do(path):
    path.write_text(PREPROCESS.replace("data/x.csv", "PLEASE FILL"))
    assert message(load_config, PreprocessConfig, path).endswith(
        "1 problem:\n  data_path: still says PLEASE FILL."
    )


def test_a_project_root_that_is_not_there_is_reported_with_all_else(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.write_text("project_root: shpo\nmodels: [run]\nlog_scale: x\n")
    text = message(load_config, VisualizeTrainingConfig, path)
    there = f"project_root: there is no folder 'shpo' (the working directory is {tmp_path}). Correct it,"
    assert "has 2 problems" in text
    assert there in text
    wrong = {"project_root": "shpo", "models": ["run"]}
    assert there in message(as_config, VisualizeTrainingConfig, wrong)
    assert there in message(as_config, VisualizeTrainingConfig, VisualizeTrainingConfig.model_validate(wrong))


def test_preprocess_makes_its_project(path):
    path.write_text(PREPROCESS.replace("project_root: .", "project_root: new"))
    assert load_config(PreprocessConfig, path).project_root == "new"


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = message(load_config, PreprocessConfig, "configs/preprocess.yaml")
    assert said.startswith("configs/preprocess.yaml has 1 problem:\n  the file does not exist")
    assert str(tmp_path) in said
    assert "--config-path" in said
    assert "seqjax make" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"- 1\n", "must hold keys and values, 'key: value' (found [1])."),
        (b"\xff\xfe\xff", "is not UTF-8 text: byte 0 is wrong."),
        (b"a: 1\na: 2\n", "line 2, column 1: the key 'a' is already in line 1; keep one of them."),
    ],
)
def test_a_file_that_holds_no_config_is_refused(tmp_path, content, expected):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert message(load_config, InferConfig, path) == f"{path} has 1 problem:\n  {expected}"


def test_an_empty_file_lacks_keys(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# nothing\n")
    assert "project_root: is required." in message(load_config, PreprocessConfig, path)
    assert "cannot be read" in message(load_config, PreprocessConfig, tmp_path)


def test_python_callers_may_give_a_model_a_mapping_or_a_path(path):
    config = load_config(PreprocessConfig, path)
    assert as_config(PreprocessConfig, config) is config
    assert as_config(PreprocessConfig, str(path)) == config
    assert as_config(PreprocessConfig, config.model_dump()) == config
    for given in (config, path, config.model_dump()):
        assert as_config(PreprocessConfig, given, {"seed": 5}) == config.model_copy(update={"seed": 5})
    said = message(as_config, PreprocessConfig, 3)
    assert said.endswith("must be a PreprocessConfig, a mapping or the path of a YAML file (found a int).")


def test_overrides_of_a_model_are_checked_too(path):
    config = load_config(PreprocessConfig, path)
    assert "seq_length: must be greater than 0" in message(
        as_config, PreprocessConfig, config, {"seq_length": -1}
    )


def test_relative_paths_start_at_the_project_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("project", "data/x.csv") == Path("project/data/x.csv")
    assert resolve_path("project", tmp_path / "x.csv") == tmp_path / "x.csv"
    Path("here.csv").touch()
    assert resolve_path("project", "here.csv") == Path("project/here.csv")
    assert resolve_path("project", "here.csv", or_here=True) == Path("here.csv")
    assert resolve_path("project", "nowhere.csv", or_here=True) == Path("project/nowhere.csv")
    Path("project").mkdir()
    Path("project/here.csv").touch()
    assert resolve_path("project", "here.csv", or_here=True) == Path("project/here.csv")


@pytest.mark.parametrize("before", [".", "", "project", "./project/", "../away/project", "{here}/project"])
@pytest.mark.parametrize(("folder", "root"), [(".", "project"), ("project", "."), ("else", "../project")])
def test_a_split_is_found_wherever_the_project_is_seen_from(tmp_path, monkeypatch, before, folder, root):
    for name in ("project/data", "else"):
        (tmp_path / name).mkdir(parents=True)
    split = tmp_path / "project" / "data" / "t-split0.parquet"
    written = split_path(before.format(here=tmp_path), "t", 0, ".parquet")
    monkeypatch.chdir(tmp_path / folder)
    missing = resolve_split(root, written)
    assert not missing.exists()
    split.touch()
    assert resolve_split(root, written).samefile(split)
    assert resolve_split(tmp_path / "project", written).samefile(split)


def test_a_split_that_is_where_the_metadata_says_is_taken_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("project/data", "other/data"):
        Path(folder).mkdir(parents=True)
        Path(folder, "t-split0").mkdir()
    assert resolve_split("project", "other/data/t-split0") == Path("other/data/t-split0")
    assert resolve_split("project", str(tmp_path / "other/data/t-split0")) == tmp_path / "other/data/t-split0"
