from seqjax.config.changes import WITHOUT_INFLUENCE, changed_keys, flattened
from seqjax.config.hyperparameter_search import TrainingSampling
from seqjax.config.train import TrainingSpec


def test_keys_without_influence_are_keys_of_a_training_and_of_a_search():
    assert set(WITHOUT_INFLUENCE) <= TrainingSpec.model_fields.keys() & TrainingSampling.model_fields.keys()


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
