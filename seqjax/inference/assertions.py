"""The statements of a configuration of inference about a model, compared with the model's own."""

import math
from collections.abc import Iterator
from importlib.util import find_spec

from seqjax.artifacts.card import ModelCard
from seqjax.config.base import suggestion
from seqjax.config.infer import InferConfig
from seqjax.config.metadata import Metadata
from seqjax.config.schema import kind_of
from seqjax.errors import Problem
from seqjax.model.distributions import DISTRIBUTIONS

SHOWN = 3


def contradictions(config: InferConfig, metadata: Metadata | None, card: ModelCard) -> Iterator[Problem]:
    """Everything in which a configuration and its metadata contradict a model.

    Args:
      config: The configuration; keys that are None assert nothing.
      metadata: The file that `metadata_config_path` names, if any.
      card: The description of the model.
    """
    if config.model_type != card.kind:
        yield _differs("model_type", config.model_type, card.kind)
    yield from _column_problems(config, card)
    actual = {
        "seq_length": card.column_schema.seq_length,
        "prediction_length": card.model_spec.prediction_length,
    }
    for key, length in actual.items():
        if getattr(config, key) not in (None, length):
            yield _differs(key, getattr(config, key), length)
    if card.kind == "generative":
        yield from _target_problems(config, card)
    if config.autoregression:
        yield from _autoregression_problems(card)
    # Without jax the model runs elsewhere, which is a reason of its own.
    if config.generation_cache == "rolling" and find_spec("jax") is not None:
        from seqjax.model.transformer import continuation_problem

        if reason := continuation_problem(card.model_spec):
            yield Problem("generation_cache", reason)
    if metadata is not None:
        yield from _metadata_problems(metadata, card)


def without_effect(config: InferConfig, card: ModelCard) -> Iterator[Problem]:
    """Options that change nothing with a model: warnings of the command, which sequifier's files may need.

    Args:
      config: The configuration, which has no contradictions.
      card: The description of the model.
    """
    for index, name in enumerate(config.sample_from_distribution_columns or ()):
        if not DISTRIBUTIONS[card.column_schema.head(name)].is_drawn:
            yield Problem(
                f"sample_from_distribution_columns.{index}",
                f"{name!r} is a real target, which has no distribution to draw from. One that is trained "
                "with criterion GaussianNLLLoss has.",
            )
    if config.infer_with_dropout and card.dropout == 0:
        yield Problem("infer_with_dropout", "the model was trained with dropout 0, so that nothing drops.")


def _differs(key: str, stated: object, actual: object) -> Problem:
    return Problem(key, f"the configuration says {stated}, the model says {actual}.")


def _column_problems(config: InferConfig, card: ModelCard) -> Iterator[Problem]:
    inputs = card.column_schema.inputs
    if config.input_columns is not None and set(config.input_columns) != set(inputs):
        yield _differs("input_columns", config.input_columns, list(inputs))
    kinds = card.column_schema.columns
    for name, type_ in (config.column_types or {}).items():
        kind = kind_of(type_)
        if name in kinds and kind != kinds[name]:
            yield _differs(f"column_types.{name}", f"{type_} ({kind})", f"it is {kinds[name]}")


def _target_problems(config: InferConfig, card: ModelCard) -> Iterator[Problem]:
    kinds = card.column_schema.targets
    if config.target_columns == []:
        yield Problem("target_columns", f"names no column. The model predicts {list(kinds)}; null is all.")
    for index, name in enumerate(config.target_columns or ()):
        if name not in kinds:
            yield Problem(f"target_columns.{index}", _no_target(name, card))
        elif name in (config.target_columns or ())[:index]:
            yield Problem(f"target_columns.{index}", f"names {name!r} a second time.")
    for name, kind in (config.target_column_types or {}).items():
        if name not in kinds:
            yield Problem(f"target_column_types.{name}", _no_target(name, card))
        elif kind != kinds[name]:
            yield _differs(f"target_column_types.{name}", kind, kinds[name])
    for index, name in enumerate(config.sample_from_distribution_columns or ()):
        if name not in kinds:
            yield Problem(f"sample_from_distribution_columns.{index}", _no_target(name, card))


def _no_target(name: str, card: ModelCard) -> str:
    return f"the model predicts no {name!r}. {suggestion(name, list(card.column_schema.targets))}"


def _autoregression_problems(card: ModelCard) -> Iterator[Problem]:
    schema, count = card.column_schema, card.model_spec.prediction_length
    if count != 1:
        yield Problem("autoregression", f"needs a model with prediction_length 1; this one has {count}.")
    unfed = sorted(set(schema.inputs) - set(schema.targets))
    if unfed:
        yield Problem(
            "autoregression", f"needs every input to be predicted too; the model does not predict {unfed}."
        )


def _metadata_problems(metadata: Metadata, card: ModelCard) -> Iterator[Problem]:
    key = "metadata_config_path"
    for name, classes in card.column_schema.n_classes.items():
        stated = metadata.n_classes.get(name, classes)
        if stated != classes:
            yield Problem(key, f"the metadata has {stated} classes of {name!r}, the model {classes}.")
    for name, ids in card.id_maps.items():
        stated_ids = metadata.id_maps.get(name, ids)
        other = [value for value in {**ids, **stated_ids} if ids.get(value) != stated_ids.get(value)]
        if other:
            examples = ", ".join(
                f"{value!r} is {stated_ids.get(value)} there and {ids.get(value)} in the model"
                for value in other[:SHOWN]
            )
            yield Problem(key, f"the metadata has other ids of {name!r} ({len(other)} differ: {examples}).")
    for name, row in card.statistics.items():
        stated_row = metadata.selected_columns_statistics.get(name, row)
        same_unit = math.isclose(stated_row.divisor, row.divisor, rel_tol=1e-6)
        close = 1e-6 * row.divisor
        if not (same_unit and math.isclose(stated_row.mean, row.mean, rel_tol=1e-6, abs_tol=close)):
            yield Problem(
                key,
                f"the metadata standardises {name!r} by mean {stated_row.mean:g} and std {stated_row.std:g}, "
                f"the model by mean {row.mean:g} and std {row.std:g}.",
            )
