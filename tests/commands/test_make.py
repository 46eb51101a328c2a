"""`make` creates a project whose configs need nothing but the marked words, and never overwrites anything."""

import pytest

from seqjax.commands.make import make
from seqjax.config.make import MakeConfig
from seqjax.errors import ConfigError


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def folders(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())


def made(path):
    return make(MakeConfig(project_name=str(path)))


def test_a_project_has_the_documented_structure(tmp_path):
    project = made(tmp_path / "deep" / "project")
    assert project == tmp_path / "deep" / "project"
    names = ["evaluate", "hyperparameter_search", "infer", "preprocess", "train"]
    assert files(project) == [".gitignore", *(f"configs/{name}.yaml" for name in names)]
    assert folders(project) == [
        "checkpoints",
        "configs",
        "configs/metadata_configs",
        "data",
        "logs",
        "models",
        "outputs",
    ]
    lines = (project / ".gitignore").read_text().splitlines()
    assert lines == ["models/", "logs/", "checkpoints/", "outputs/", "data/", ".DS_Store"]


def test_an_existing_folder_is_filled_up_and_what_it_holds_is_kept(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("mine")
    (tmp_path / ".gitignore").write_text("mine\n")
    made(tmp_path)
    assert (tmp_path / "data" / "mine.csv").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    assert (tmp_path / "configs" / "train.yaml").is_file()


def test_existing_configs_are_not_overwritten(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="configs exists already, and is not overwritten"):
        made(tmp_path)
    assert files(tmp_path) == ["configs/train.yaml"]
    assert (tmp_path / "configs" / "train.yaml").read_text() == "mine"


def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file exists already"):
        made(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be created"):
        made(tmp_path / "file" / "project")
