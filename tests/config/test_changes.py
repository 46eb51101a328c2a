from typing import Annotated

from seqjax.config.base import ConfigModel
from seqjax.config.changes import FREE, TRACED, changed_keys, flattened, mark_of, marked_keys
from seqjax.config.hyperparameter_search import TrainingSampling
from seqjax.config.train import TrainingSpec


class Section(ConfigModel):
    rate: Annotated[float, TRACED] = 1.0
    folder: Annotated[str | None, FREE] = None
    size: int = 1


class Whole(ConfigModel):
    seed: Annotated[int, TRACED] = 0
    section: Section | None = None
    files: Annotated[Section, FREE] = Section()


def test_keys_are_found_by_their_marks_in_sections_too():
    assert marked_keys(Whole, lambda mark: not mark.is_compiled) == [
        *("seed", "section.rate", "section.folder", "files")
    ]
    assert marked_keys(Whole, lambda mark: not mark.has_influence) == ["section.folder", "files"]
    assert mark_of(Section, "size").is_compiled


def test_a_search_and_a_training_agree_about_their_keys():
    shared = TrainingSpec.model_fields.keys() & TrainingSampling.model_fields.keys()
    for name in shared - {"epochs", "learning_rate", "scheduler", "optimizer", "dropout"}:
        assert mark_of(TrainingSpec, name) == mark_of(TrainingSampling, name), name


def test_keys_are_dotted_and_lists_are_values():
    assert flattened({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}], "f": {}}) == {
        "a.b.c": 1,
        "d": [1, {"e": 2}],
        "f": {},
    }


def test_changes_are_found_in_both_directions():
    before = {"seed": 1, "spec": {"rate": 0.1, "old": True}}
    after = {"seed": 1, "spec": {"rate": 0.2, "new": 3}}
    assert changed_keys(before, after) == {
        "spec.rate": (0.1, 0.2),
        "spec.old": (True, None),
        "spec.new": (None, 3),
    }


def test_ignored_keys_cover_what_is_below_them():
    before, after = {"a": {"b": 1, "c": 1}, "ab": 1}, {"a": {"b": 2, "c": 2}, "ab": 2}
    assert list(changed_keys(before, after, ignored=["a"])) == ["ab"]
    assert list(changed_keys(before, after, ignored=["a.b"])) == ["a.c", "ab"]
