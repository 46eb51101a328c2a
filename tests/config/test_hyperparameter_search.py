"""The documented keys of a search, and the mistakes in it that are found before anything is trained."""

import pytest

from seqjax.config.hyperparameter_search import ModelSampling, TrainingSampling
from seqjax.config.model import ModelSpec
from seqjax.config.train import TrainingSpec
from seqjax.errors import ConfigError
from tests.searches import search


def test_documented_defaults_are_real():
    config = search(search_strategy="sample", n_samples=3)
    assert (config.export_onnx, config.export_pt, config.export_with_dropout) == (True, False, False)
    training = config.training_hyperparameter_sampling
    assert (training.dropout, training.log_interval, training.scheduler) == ((0.0,), 10, None)
    assert config.model_hyperparameter_sampling.prediction_length == 1


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
        (
            {"training": {"optimizer": [{"name": "Adamw"}]}},
            "optimizer.0.name: no optimizer is called 'Adamw'.",
        ),
        (
            {"training": {"scheduler": [{"name": "StepLR", "step_sizes": 3}]}},
            "scheduler.0.step_sizes: unknown key. Did you mean 'step_size'?",
        ),
        ({"model": {"num_layer": [1]}}, "num_layer: unknown key. Did you mean 'num_layers'?"),
        ({"model": {"num_layers": 2}}, "num_layers: must be a list or a section of keys and values"),
        ({"model": {"num_layers": []}}, "num_layers: must be a list of 1 or more"),
        (
            {"model": {"activation_fn": ["relu", "gellu"]}},
            "activation_fn.1: must be 'swiglu', 'gelu' or 'relu'",
        ),
        (
            {"training": {"device": "cdua"}},
            "training_hyperparameter_sampling.device: must be auto, cpu, cuda or mps (found 'cdua')",
        ),
        (
            {"target_column_types": {"other": "real"}},
            "target_column_types: must name the target_columns",
        ),
        ({"hp_search_nam": "x"}, "hp_search_nam: unknown key. Did you mean 'hp_search_name'?"),
        ({"hp_search_name": "a/b"}, "hp_search_name: must not contain a slash"),
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
        ({"other_sampling": {"model_name": ["a"]}}, "other_sampling.model_name: cannot be varied"),
        ({"other_sampling": {"seed": []}}, "other_sampling.seed: must be a list of 1 or more"),
        ({"batch_size": [3]}, "batch_size: unknown key. It belongs in training_hyperparameter_sampling."),
    ],
)
def test_a_mistake_is_explained(changes, message):
    with pytest.raises(ConfigError) as caught:
        search(**changes)
    assert message in str(caught.value)
