"""Optuna's study of a space: what is asked for, and a file that holds none."""

import pytest

from seqjax.commands.search_study import Study
from seqjax.errors import ArtifactError
from seqjax.sweep.space import space_of
from tests.searches import search


@pytest.mark.parametrize("content", [b"no database" * 1000, b"[]\n" * 9, b"\xff\xfe\n" * 9])
def test_a_file_that_is_no_study_is_named(tmp_path, content):
    path = tmp_path / "demo-study"
    path.write_bytes(content)
    space = space_of(search({"num_layers": [1, 2]}, search_strategy="tpe", n_samples=2))
    with pytest.raises(ArtifactError, match=r"demo-study cannot be opened as a study of Optuna's \(.+\)\."):
        Study(path, "demo", space, seed=1, wanted=2)
    assert path.read_bytes() == content


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_are_asked_for_within_their_bounds(tmp_path, log):
    others = {"training_spec.early_stopping_epochs": {"low": 2.0, "high": 4.0, "log": log}}
    layers = {"num_layers": {"low": 1, "high": 2, "log": log}}
    config = search(layers, search_strategy="tpe", n_samples=9, other_sampling=others)
    study = Study(tmp_path / "s.db", "demo", space_of(config), seed=1, wanted=9)
    study.ask(20, at_random=True)
    asked = list(study.settings().values())
    assert {settings["model_spec.num_layers"] for settings in asked} == {1, 2}
    assert {settings["training_spec.early_stopping_epochs"] for settings in asked} == {2, 3, 4}
