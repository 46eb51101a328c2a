"""The documented keys of a search, and the mistakes in it that are found before anything is trained."""

import pytest

from seqjax.config.hyperparameter_search import HyperparameterSearchConfig, ModelSampling, TrainingSampling
from seqjax.config.model import ModelSpec
from seqjax.config.sampling import Range
from seqjax.config.train import TrainingSpec
from seqjax.errors import ConfigError
from seqjax.options import read_words
from tests.searches import search


def test_documented_defaults_are_real():
    config = search(search_strategy="sample", n_samples=3)
    assert (config.export_onnx, config.export_pt, config.export_with_dropout) == (True, False, False)
    training = config.training_hyperparameter_sampling
    assert (training.dropout, training.log_interval, training.scheduler) == ((0.0,), 10, None)
    assert config.model_hyperparameter_sampling.prediction_length == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["a", "b"], (["a", "b"],)), (["None"], (None,)), (["[[a], [a, b]]"], (["a"], ["a", "b"]))],
)
def test_columns_on_the_command_line_are_one_set_or_several(words, expected):
    annotation = HyperparameterSearchConfig.model_fields["input_columns"].annotation
    given = read_words(words, annotation, "input_columns")
    assert search(input_columns=given).input_columns == expected


def test_every_key_of_a_training_can_be_searched_or_fixed():
    assert set(ModelSampling.model_fields) == set(ModelSpec.model_fields)
    assert set(TrainingSampling.model_fields) == set(TrainingSpec.model_fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"dim_model": [4, 8]}},
            "n_head: must have a value for each of dim_model, 2 in all (found 1)",
        ),
        (
            {"model": {"feature_embedding_dims": [None, None]}},
            "feature_embedding_dims: must have a value for",
        ),
        ({"model": {"joint_embedding_dim": []}}, "joint_embedding_dim: must have a value for each"),
        ({"training": {"epochs": [1, 2]}}, "epochs: must have a value for each of learning_rate, 1 in all"),
        (
            {"training": {"learning_rate": [0.1, 0.2], "epochs": [1, 2], "scheduler": [{"name": "StepLR"}]}},
            "scheduler: must have a value for each of learning_rate, 2 in all (found 1)",
        ),
        ({"column_types": [{}, {}]}, "column_types: must have a value for each of input_columns, 1 in all"),
        ({"column_types": [{"item": "text"}]}, "column_types.0.item: no stored column has the type 'text'."),
        (
            {"training": {"optimizer": [{"name": "Adamw"}]}},
            "optimizer.0.name: no optimizer is called 'Adamw'.",
        ),
        (
            {"training": {"scheduler": [{"name": "StepLR", "step_sizes": 3}]}},
            "scheduler.0.step_sizes: unknown key. Did you mean 'step_size'?",
        ),
        ({"model": {"num_layer": [1]}}, "num_layer: unknown key. Did you mean 'num_layers'?"),
        (
            {"model": {"num_layers": 2}},
            "num_layers: must be a list or a range, {low: ..., high: ...} (found 2).",
        ),
        (
            {"model": {"num_layers": []}},
            "num_layers: must be a list of 1 or more, or a range, {low: ..., high: ...} (found []).",
        ),
        (
            {"model": {"activation_fn": ["relu", "gellu"]}},
            "activation_fn.1: must be 'swiglu', 'gelu' or 'relu'",
        ),
        (
            {"training": {"device": "cdua"}},
            "training_hyperparameter_sampling.device: must be auto, cpu, cuda or mps (found 'cdua')",
        ),
        ({"target_column_types": {"other": "real"}}, "target_column_types: must name the target_columns"),
        ({"hp_search_nam": "x"}, "hp_search_nam: unknown key. Did you mean 'hp_search_name'?"),
        ({"hp_search_name": "a/b"}, "hp_search_name: must not contain a slash"),
        (
            {"hp_search_name": "é" * 100},
            "hp_search_name: must have at most 185 bytes: it becomes part of file names (found 200).",
        ),
        ({"search_strategy": "sample"}, "n_samples: is required for search_strategy: sample"),
        ({"engine": "parallel"}, "engine: must be 'vmap', 'sequential' or 'ray'"),
        ({"search_strategy": "tpe"}, "n_samples: is required for search_strategy: tpe"),
        (
            {"training": {"dropout": {"low": 0.1, "high": 0.1}}},
            "dropout.high: must be greater than low, 0.1 (found 0.1)",
        ),
        (
            {"training": {"dropout": {"low": 0, "high": 0.1, "log": True}}},
            "dropout.log: true needs low to be above 0 (found 0)",
        ),
        (
            {"training": {"dropout": {"low": 0, "high": 0.5}}},
            "training_hyperparameter_sampling.dropout: a range has no end of values to try",
        ),
        ({"seq_length": {"low": 2, "high": 4}}, "seq_length: a range has no end of values to try"),
        (
            {"search_strategy": "halving", "other_sampling": {"seed": {"low": 0, "high": 4}}},
            "other_sampling.seed: a range has no end of values to try: set search_strategy: halving with",
        ),
        (
            {"training": {"learning_rate": {"low": 0.1, "high": 1}, "epochs": [1, 2]}},
            "epochs: must have a value for each of learning_rate, 1 in all (found 2)",
        ),
        (
            {"other_sampling": {"training_spec.learning_rat": [1]}},
            "no such key of the training configuration. Did you mean 'training_spec.learning_rate'?",
        ),
        (
            {"other_sampling": {"training_spec.learning_rate": [1]}},
            "has a place of its own: training_hyperparameter_sampling.learning_rate.",
        ),
        *(
            (
                {"other_sampling": {key: ["a"]}},
                f"other_sampling.{key}: {key.rpartition('.')[0]} holds no keys or names, so that nothing",
            )
            for key in ("seed.x", "training_spec.gradient_clip.x", "target_columns.0")
        ),
        *(
            (
                {"search_strategy": "sample", "n_samples": 2, **changes},
                f"{key}: must be a whole number (found {found}).",
            )
            for changes, key, found in (
                ({"training": {"batch_size": {"low": 8.2, "high": 9}}}, "batch_size.low", 8.2),
                ({"training": {"epochs": {"low": 1, "high": 9.5}}}, "epochs.high", 9.5),
                ({"model": {"num_layers": {"low": 0.5, "high": 3, "log": True}}}, "num_layers.low", 0.5),
                ({"seq_length": {"low": 1, "high": 3.5}}, "seq_length.high", 3.5),
            )
        ),
        (
            {
                "search_strategy": "sample",
                "n_samples": 2,
                "other_sampling": {"training_spec.early_stopping_epochs": {"low": 1, "high": 2.5}},
            },
            "early_stopping_epochs: takes whole numbers, so that low and high must be whole numbers too "
            "(found 2.5).",
        ),
        ({"other_sampling": {"model_name": ["a"]}}, "other_sampling.model_name: cannot be varied"),
        ({"other_sampling": {"seed": []}}, "other_sampling.seed: must be a list of 1 or more"),
        ({"batch_size": [3]}, "batch_size: unknown key. It belongs in training_hyperparameter_sampling."),
    ],
)
def test_a_mistake_is_explained(changes, message):
    with pytest.raises(ConfigError) as caught:
        search(**changes)
    assert message in str(caught.value)


def test_a_misspelt_key_of_a_range_is_named():
    with pytest.raises(ConfigError) as caught:
        search(search_strategy="sample", n_samples=2, training={"learning_rate": {"low": 0.1, "hi": 1}})
    assert [str(problem) for problem in caught.value.problems] == [
        "training_hyperparameter_sampling.learning_rate.high: is required.",
        "training_hyperparameter_sampling.learning_rate.hi: unknown key. Did you mean 'high'?",
    ]


def test_all_mistakes_in_a_range_are_named():
    with pytest.raises(ConfigError) as caught:
        search(search_strategy="sample", n_samples=2, training={"batch_size": {"low": 1.5, "high": 2.5}})
    assert [problem.key.rpartition(".")[2] for problem in caught.value.problems] == ["low", "high"]


def test_whole_bounds_may_be_written_with_a_point():
    config = search({"num_layers": {"low": 1.0, "high": 3.0}}, search_strategy="sample", n_samples=2)
    layers = config.model_hyperparameter_sampling.num_layers
    assert isinstance(layers, Range)
    assert (layers.low, layers.high) == (1, 3)
