"""Which combinations a space has, in which order, which are drawn, and what is trained of them."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.config.base import validate
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import parse_yaml, to_yaml
from seqjax.errors import ConfigError
from seqjax.sweep.space import MAX_GRID, plan, shuffled, space_of
from tests.searches import METADATA, search

EXAMPLE = {
    "dim_model": [64, 128],
    "n_head": [4, 8],
    "initial_embedding_dim": [64, 128],
    "joint_embedding_dim": [None, None],
}


def specs(planned):
    return [candidate.config.model_spec for candidate in planned.candidates]


def test_the_documented_example_is_never_crossed():
    planned = plan(search(EXAMPLE), METADATA)
    assert [(spec.dim_model, spec.n_head) for spec in specs(planned)] == [(64, 4), (128, 8)]
    assert planned.skipped == ()


def test_linked_lists_meet_every_independent_value():
    planned = plan(
        search(
            EXAMPLE | {"num_layers": [1, 2]},
            {"learning_rate": [0.1, 0.01], "epochs": [5, 9], "dropout": [0.0, 0.5]},
            input_columns=[["item"], ["item", "price"]],
            seq_length=[3, 4],
        ),
        METADATA,
    )
    assert planned.skipped == ()
    found = {
        (
            one.model_spec.dim_model,
            one.model_spec.n_head,
            one.model_spec.num_layers,
            one.training_spec.learning_rate,
            one.training_spec.epochs,
            one.training_spec.dropout,
            one.seq_length,
        )
        for one in (candidate.config for candidate in planned.candidates)
    }
    pairs = itertools.product(
        [(64, 4), (128, 8)], [(1,), (2,)], [(0.1, 5), (0.01, 9)], [(0.0,), (0.5,)], [(3,), (4,)]
    )
    assert found == {tuple(itertools.chain(*parts)) for parts in pairs}
    assert len(planned.candidates) == 64


def test_the_order_is_that_of_the_reference():
    """Architectures change fastest, the last of their keys first; then training; then columns and length."""
    space = space_of(
        search(
            EXAMPLE | {"dim_feedforward": [1, 2], "rope_theta": [10.0, 20.0]},
            {"learning_rate": [0.1, 0.2], "epochs": [1, 2], "accumulation_steps": [1, 2]},
            seq_length=[3, 4],
        )
    )
    keys = (
        "seq_length",
        "training_spec.learning_rate",
        "training_spec.accumulation_steps",
        "model_spec.dim_model",
        "model_spec.dim_feedforward",
        "model_spec.rope_theta",
    )
    listed = [[space.combination(number)[key] for key in keys] for number in range(space.count)]
    expected = itertools.product([3, 4], [0.1, 0.2], [1, 2], [64, 128], [1, 2], [10.0, 20.0])
    assert listed == [list(values) for values in expected]
    for key in (*keys, "model_spec.n_head", "training_spec.epochs"):
        assert key in space.varied
    assert "model_spec.joint_embedding_dim" not in space.varied


@st.composite
def spaces(draw):
    """A search, and the sizes of its independent lists and of its linked groups."""
    sizes = {
        key: draw(st.integers(1, 3))
        for key in (
            "widths",
            "rates",
            "inputs",
            "layers",
            "feedforward",
            "theta",
            "batch",
            "dropout",
            "length",
        )
    }
    count = sizes["widths"]
    dims = [8 * place for place in range(1, count + 1)]
    model = {
        "dim_model": dims,
        "n_head": [1] * count,
        "initial_embedding_dim": dims,
        "joint_embedding_dim": draw(st.sampled_from([dims, [None] * count])),
        "feature_embedding_dims": draw(st.sampled_from([None, [{"item": dim} for dim in dims]])),
        "num_layers": list(range(1, sizes["layers"] + 1)),
        "dim_feedforward": list(range(1, sizes["feedforward"] + 1)),
        "rope_theta": [10.0**place for place in range(1, sizes["theta"] + 1)],
    }
    rates = sizes["rates"]
    training = {
        "learning_rate": [0.1**place for place in range(1, rates + 1)],
        "epochs": [3] * rates,
        "scheduler": draw(
            st.sampled_from([None, [{"name": "StepLR", "step_size": place + 1} for place in range(rates)]])
        ),
        "batch_size": list(range(1, sizes["batch"] + 1)),
        "dropout": [place / 4 for place in range(sizes["dropout"])],
    }
    top = {
        "input_columns": [[f"c{place}"] for place in range(sizes["inputs"])],
        "seq_length": list(range(1, sizes["length"] + 1)),
    }
    return search(model, training, **top), math.prod(sizes.values())


@settings(deadline=None, max_examples=100)
@given(spaces())
def test_the_count_is_the_product_of_independent_lists_and_groups(made):
    config, expected = made
    space = space_of(config)
    assert space.count == expected
    some = range(0, expected, max(1, expected // 200))
    combinations = {repr(space.combination(number)) for number in some}
    assert len(combinations) == len(some)
    for number in some:
        settings = space.combination(number)
        dim = settings["model_spec.dim_model"]
        assert settings["model_spec.initial_embedding_dim"] == dim
        assert settings["model_spec.joint_embedding_dim"] in (dim, None)


@given(st.integers(0, 200), st.integers(0, 9))
def test_a_shuffle_holds_each_number_once(count, seed):
    assert sorted(shuffled(count, seed)) == list(range(count))


def test_a_shuffle_of_a_huge_space_costs_what_is_taken():
    taken = list(itertools.islice(shuffled(10**40, 3), 1000))
    assert len(set(taken)) == 1000
    assert taken == list(itertools.islice(shuffled(10**40, 3), 1000))
    assert taken != list(itertools.islice(shuffled(10**40, 4), 1000))


LARGE = {"dim_feedforward": list(range(1, 500)), "num_layers": list(range(1, 500)), "rope_theta": [1.0, 2.0]}


def test_samples_are_distinct_and_seeded():
    def numbers(count, seed):
        config = search(LARGE, search_strategy="sample", n_samples=count, seed=seed)
        return [candidate.combination for candidate in plan(config, METADATA).candidates]

    drawn = numbers(50, 1)
    assert len(set(drawn)) == 50
    assert numbers(20, 1) == drawn[:20]
    assert numbers(50, 2) != drawn
    assert max(drawn) > 100_000


def test_a_sample_as_large_as_the_space_is_all_of_it():
    config = search({"num_layers": [1, 2, 3]}, search_strategy="sample", n_samples=50)
    planned = plan(config, METADATA)
    assert sorted(candidate.combination for candidate in planned.candidates) == [0, 1, 2]
    assert [candidate.run for candidate in planned.candidates] == [0, 1, 2]


def test_a_grid_beyond_reason_is_refused():
    with pytest.raises(ConfigError, match=f"grid makes 498002 combinations, more than {MAX_GRID}"):
        plan(search(LARGE), METADATA)


def test_key_value_heads_that_do_not_divide_become_null():
    heads = {"n_head": [4], "attention_type": ["gqa"], "n_kv_heads": [2, 3, 4, None]}
    planned = plan(search(heads), METADATA)
    assert [spec.n_kv_heads for spec in specs(planned)] == [2, None, 4]
    assert [candidate.settings["model_spec.n_kv_heads"] for candidate in planned.candidates] == [2, None, 4]
    (skipped,) = planned.skipped
    assert (skipped.combination, skipped.reason) == (3, "comes to the same training as combination 1.")


def test_impossible_combinations_are_skipped_with_the_reason_and_replaced_in_a_sample():
    model = {"n_head": [4], "attention_type": ["mha", "gqa"], "n_kv_heads": [2, 1]}
    planned = plan(search(model), METADATA)
    assert [candidate.config.model_name for candidate in planned.candidates] == ["demo-run-0", "demo-run-1"]
    assert [candidate.combination for candidate in planned.candidates] == [2, 3]
    assert planned.skipped[0].reason.startswith(
        "model_hyperparameter_sampling.n_kv_heads.0: must be null or n_head (4) with attention_type: mha"
    )
    for seed in range(5):
        sample = search(model, search_strategy="sample", n_samples=2, seed=seed)
        assert len(plan(sample, METADATA).candidates) == 2


def test_a_search_without_any_possible_run_says_why():
    with pytest.raises(ConfigError, match="no combination that can be trained") as caught:
        plan(search(training={"criterion": {"item": "MSELoss"}}), METADATA)
    assert "training_hyperparameter_sampling.criterion.item: 'MSELoss' is no loss" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"criterion": {"price": "MSELoss"}}}, "training_hyperparameter_sampling.criterion"),
        ({"input_columns": [["item"], ["item", "pric"]]}, "input_columns.1.1"),
        ({"seq_length": [4, 6]}, "seq_length.1"),
        ({"model": {"n_head": [3]}}, "model_hyperparameter_sampling.n_head.0"),
        (
            {"other_sampling": {"training_spec.gradient_clip": [None, 0.5, -1]}},
            "other_sampling.training_spec.gradient_clip.2",
        ),
        (
            {"other_sampling": {"training_spec.optimizer.eps": ["big"]}},
            "other_sampling.training_spec.optimizer.eps.0",
        ),
        (
            {
                "search_strategy": "sample",
                "n_samples": 1,
                "other_sampling": {"training_spec.gradient_clip": {"low": -2, "high": -1}},
            },
            "other_sampling.training_spec.gradient_clip",
        ),
    ],
)
def test_a_reason_names_the_keys_of_the_search(changes, key):
    try:
        skipped = plan(search(**changes), METADATA).skipped
        reason = skipped[0].reason
    except ConfigError as error:
        reason = str(error.problems[0])
    assert reason.partition(":")[0] == key


def test_columns_are_selected_with_their_types():
    types = [{"item": "Int64"}, {"item": "Int64", "price": "Float64"}]
    planned = plan(
        search(
            {"joint_embedding_dim": [4], "feature_embedding_dims": [{"item": 3, "price": 1}]},
            input_columns=[["item"], ["item", "price"]],
            column_types=types,
        ),
        METADATA,
    )
    (candidate,) = planned.candidates
    assert candidate.config.input_columns == ["item", "price"]
    assert candidate.config.column_types == types[1]
    assert "must name the input_columns" in planned.skipped[0].reason


def test_all_columns_or_one_set_may_be_written_without_a_list():
    for columns, expected in ((None, None), (["item", "price"], ["item", "price"]), ([None], None)):
        (candidate,) = plan(search(input_columns=columns), METADATA).candidates
        assert candidate.config.input_columns == expected
    types = [{"item": "Int64"}, {"item": "Int64", "price": "Float64"}]
    assert search(input_columns=None, column_types=types).input_columns == (["item"], ["item", "price"])


def test_sets_of_one_kind_and_mixed_ones_are_tried_with_the_widths_that_suit_them():
    widths = [None, {"item": 2, "price": 2}]
    model = {
        "dim_model": [4, 4],
        "n_head": [2, 2],
        "initial_embedding_dim": [4, 4],
        "joint_embedding_dim": [None, None],
        "feature_embedding_dims": widths,
    }
    planned = plan(search(model, input_columns=[["item"], ["item", "price"]]), METADATA)
    found = [
        (one.config.input_columns, one.config.model_spec.feature_embedding_dims) for one in planned.candidates
    ]
    both = ["item", "price"]
    assert sorted(found, key=str) == sorted([(["item"], None), (both, None), (both, widths[1])], key=str)
    assert len(planned.skipped) == 1


def test_a_candidate_is_a_complete_training_configuration_that_is_read_back_equal():
    config = search(
        {"prediction_length": 2, "mask_padding": False},
        {
            "optimizer": [{"name": "AdamW", "betas": [0.9, 0.98], "weight_decay": 1e-5}],
            "scheduler": [{"name": "CosineAnnealingLR", "T_max": 2, "eta_min": 1e-7}],
            "class_weights": {"item": [1, 1, 0.5, 1, 1]},
            "gradient_clip": None,
            "early_stopping_epochs": 3,
        },
        seed=7,
        export_pt=True,
    )
    (candidate,) = plan(config, METADATA).candidates
    train = candidate.config
    read = parse_yaml(to_yaml(train.model_dump(mode="json")), "run.yaml")
    assert isinstance(read, dict)
    assert set(read) == set(TrainConfig.model_fields)
    assert validate(TrainConfig, read, "run.yaml") == train
    assert (train.model_name, train.seed, train.export_pt) == ("demo-run-0", 7, True)
    assert (train.model_spec.prediction_length, train.model_spec.mask_padding) == (2, False)
    spec = train.training_spec
    assert spec.optimizer.arguments == {"betas": [0.9, 0.98], "weight_decay": 1e-5}
    assert spec.scheduler.arguments == {"T_max": 2, "eta_min": 1e-7}
    assert (spec.gradient_clip, spec.early_stopping_epochs, spec.accumulation_steps) == (None, 3, 1)


def test_ranges_are_drawn_by_seed_and_number():
    training = {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "epochs": {"low": 2, "high": 5},
        "dropout": {"low": 0, "high": 0.5},
    }
    others = {
        "training_spec.optimizer.weight_decay": {"low": 0, "high": 1},
        "training_spec.optimizer.eps": [1e-8, 1e-6],
        "seed": {"low": 0, "high": 9},
    }

    def drawn(count, seed):
        config = search(
            {"num_layers": [1, 2]},
            training,
            other_sampling=others,
            search_strategy="sample",
            n_samples=count,
            seed=seed,
        )
        return plan(config, METADATA).candidates

    found = drawn(60, 1)
    assert [one.settings for one in drawn(20, 1)] == [one.settings for one in found[:20]]
    assert drawn(5, 2)[0].settings != found[0].settings
    specs = [one.config.training_spec for one in found]
    rates = sorted(spec.learning_rate for spec in specs)
    assert 1e-4 <= rates[0] < rates[20] < 2e-2 < rates[-1] <= 1e-1
    assert {spec.epochs for spec in specs} == {2, 3, 4, 5}
    assert {one.config.model_spec.num_layers for one in found} == {1, 2}
    assert all(0 <= spec.dropout <= 0.5 for spec in specs)
    # Nothing but the bounds' type would make these whole, and the optimizer's own keys say otherwise.
    decays = [spec.optimizer.arguments["weight_decay"] for spec in specs]
    assert len(set(decays)) == 60
    assert {spec.optimizer.arguments["eps"] for spec in specs} == {1e-8, 1e-6}
    assert {spec.optimizer.name for spec in specs} == {"Adam"}
    assert all(isinstance(one.config.seed, int) for one in found)
    assert set(found[0].settings) == {
        "training_spec.learning_rate",
        "training_spec.epochs",
        "training_spec.dropout",
        "model_spec.num_layers",
        *others,
    }


def test_halving_begins_with_all_or_with_a_sample():
    layers = {"num_layers": [1, 2, 3, 4]}
    assert len(plan(search(layers, search_strategy="halving"), METADATA).candidates) == 4
    assert len(plan(search(layers, search_strategy="halving", n_samples=2), METADATA).candidates) == 2


def test_a_key_inside_of_another_is_set_after_it():
    config = search(
        training={"optimizer": [{"name": "Adam"}, {"name": "SGD", "weight_decay": 0.5}]},
        other_sampling={
            "training_spec.optimizer.weight_decay": [0.1],
            "training_spec.loss_weights.item": [2.0],
        },
    )
    specs = [one.config.training_spec for one in plan(config, METADATA).candidates]
    assert [spec.optimizer.arguments for spec in specs] == [{"weight_decay": 0.1}] * 2
    assert [spec.loss_weights for spec in specs] == [{"item": 2.0}] * 2


def test_a_number_for_all_targets_gives_way_to_one_for_each():
    config = search(
        training={"label_smoothing": 0.3}, other_sampling={"training_spec.label_smoothing.item": [0.1, 0.2]}
    )
    specs = [one.config.training_spec for one in plan(config, METADATA).candidates]
    assert [spec.label_smoothing for spec in specs] == [{"item": 0.1}, {"item": 0.2}]
