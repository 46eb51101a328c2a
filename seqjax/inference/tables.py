"""Result tables: what users read, in their own values and names, and which of them a configuration asks for.

Ids become the values of the table again, in its types, and standardised values become values in its units.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Float32, Int64

from seqjax.artifacts.card import ModelCard
from seqjax.config.infer import InferConfig
from seqjax.config.names import Names
from seqjax.console import progress
from seqjax.data.columns import TEXT, class_labels, class_values, decode_ids, denormalise
from seqjax.data.keys import NUMBERS, Keys
from seqjax.inference.engine import Engine
from seqjax.inference.forecast import Embeddings, Forecast, embed, forecast
from seqjax.inference.inputs import Source
from seqjax.inference.sample import Reader
from seqjax.model.distributions import DISTRIBUTIONS, SamplingRule, distribution_of

logger = logging.getLogger(__name__)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the samples of real targets."""


def labels_of(card: ModelCard, column: str) -> list[str]:
    """The label of each class of a categorical column."""
    count = card.column_schema.n_classes[column]
    return class_labels(card.id_maps.get(column, {}), count, card.value_types.get(column, TEXT))


def prediction_table(
    forecast: Forecast, card: ModelCard, targets: Sequence[str], keys: Keys = NUMBERS, *, map_to_id: bool
) -> pl.DataFrame:
    """One row a predicted item: id, time, `sample` where there are several, then the targets.

    A column that is no target is called otherwise, with an underscore behind, where a target has its name.
    Where passes with dropout were averaged, `<target>_mean` and `<target>_std` (Float64) follow each target:
    of its value in original units, or of the probability of its class.

    Args:
      forecast: What was predicted.
      card: The model's maps and statistics.
      targets: Which targets, in which order.
      keys: The ids and times of the data.
      map_to_id: Whether to write original values of categorical targets, in the type that they have in the
        table, rather than ids (Int64).
    """
    n_classes = card.column_schema.n_classes
    columns = list(keys.of(forecast.sequence_id, forecast.item_position))
    names = Names([*(column.name for column in columns), *card.column_schema.targets])
    if forecast.sample is not None:
        columns.append(pl.Series(names.free("sample"), forecast.sample).replace(-1, None))
    for name in targets:
        values = forecast.values[name]
        if card.column_schema.targets[name] == "real":
            columns.append(pl.Series(name, denormalise(values, card.statistics[name])))
        elif map_to_id and name in card.id_maps:
            known = class_values(card.id_maps[name], n_classes[name], card.value_types.get(name, TEXT))
            columns.append(decode_ids(values, known).alias(name))
        else:
            columns.append(pl.Series(name, values, pl.Int64))
        if name in forecast.spread:
            columns += _spread_columns(name, forecast.spread[name], card, names)
    return pl.DataFrame(columns)


def probability_table(
    forecast: Forecast, card: ModelCard, target: str, keys: Keys | None = None
) -> pl.DataFrame:
    """One row a predicted item: the probability (Float32) of each class of a categorical target, by label.

    Args:
      forecast: What was predicted.
      card: The model's maps.
      target: The target.
      keys: The ids and times of the data, to begin rows with; None leaves them out.
    """
    before = [] if keys is None else list(keys.of(forecast.sequence_id, forecast.item_position))
    probs = np.exp(forecast.log_probs[target], dtype=np.float64)
    shares = (probs / probs.sum(axis=-1, keepdims=True)).astype(np.float32)
    return _shares(before, shares, labels_of(card, target))


def _shares(before: list[pl.Series], shares: Float32[np.ndarray, "R C"], labels: list[str]) -> pl.DataFrame:
    """Columns, then one for each class; a class that is called as one before it gets an underscore."""
    taken = [column.name for column in before]
    names = Names([*taken, *labels])
    titles = [names.free(label) if label in taken else label for label in labels]
    table = pl.DataFrame(shares, schema=titles, orient="row")
    return pl.DataFrame([*before, *table])


def _spread_columns(
    name: str, moments: Float[np.ndarray, "R moments"], card: ModelCard, names: Names
) -> list[pl.Series]:
    mean, deviation = moments.T
    if card.column_schema.targets[name] == "real":
        mean = denormalise(mean, card.statistics[name])
        deviation = deviation * card.statistics[name].unit
    columns = {names.free(f"{name}_mean"): mean, names.free(f"{name}_std"): deviation}
    return [pl.Series(title, values.astype(np.float64)) for title, values in columns.items()]


def quantile_table(
    forecast: Forecast, card: ModelCard, targets: Sequence[str], keys: Keys = NUMBERS
) -> pl.DataFrame:
    """The mean and quantiles of the samples of each continued item, in original units.

    Args:
      forecast: What was predicted, with samples.
      card: The model's statistics.
      targets: Real targets.
      keys: The ids and times of the data.

    Returns:
      One row an item: id, time, then for each target `<target>_mean` and the quantiles
      `<target>_q05`, `_q25`, `_q50`, `_q75`, `_q95` (Float64) over the samples, interpolated linearly.
    """
    columns, rows = _items(forecast, keys)
    names = Names(column.name for column in columns)
    for name in targets:
        values = denormalise(forecast.values[name][rows], card.statistics[name])
        columns.append(pl.Series(names.free(f"{name}_mean"), values.mean(axis=1)))
        for share, quantile in zip(QUANTILES, np.quantile(values, QUANTILES, axis=1), strict=True):
            columns.append(pl.Series(names.free(f"{name}_q{share * 100:02.0f}"), quantile))
    return pl.DataFrame(columns)


def frequency_table(forecast: Forecast, card: ModelCard, target: str, keys: Keys = NUMBERS) -> pl.DataFrame:
    """One row a continued item: id, time, then the share of samples (Float32) of each class, by label."""
    before, rows = _items(forecast, keys)
    classes, (items, samples) = card.column_schema.n_classes[target], rows.shape
    flat = forecast.values[target][rows] + classes * np.arange(items)[:, None]
    counts = np.bincount(flat.reshape(-1), minlength=classes * items).reshape(-1, classes)
    shares = (counts / samples).astype(np.float32)
    return _shares(before, shares, labels_of(card, target))


def _items(forecast: Forecast, keys: Keys) -> tuple[list[pl.Series], Int64[np.ndarray, "I N"]]:
    """Ids and times of the items that were sampled, and the rows of each item's samples."""
    assert forecast.sample is not None
    sampled = np.flatnonzero(forecast.sample >= 0)
    number = forecast.sample[sampled]
    # Each sequence's rows lie together, continuation after continuation, all of them equally long.
    steps = int(np.argmax(number > 0)) or len(sampled)
    rows = sampled.reshape(-1, number.max() + 1, steps).swapaxes(1, 2).reshape(-1, number.max() + 1)
    first = rows[:, 0]
    return list(keys.of(forecast.sequence_id[first], forecast.item_position[first])), rows


def embedding_table(embeddings: Embeddings, keys: Keys = NUMBERS) -> pl.DataFrame:
    """One row a hidden state: id, subsequenceId, time, then its components "0", "1", ...

    Where passes with dropout were averaged, the standard deviations "0_std", "1_std", ... follow.
    """
    ids, times = keys.of(embeddings.sequence_id, embeddings.item_position)
    before = [ids, pl.Series("subsequenceId", embeddings.subsequence_id), times]
    names = [str(number) for number in range(embeddings.vectors.shape[1])]
    table = pl.DataFrame(before).hstack(pl.DataFrame(embeddings.vectors, schema=names, orient="row"))
    if embeddings.spread is None:
        return table
    deviations = [f"{name}_std" for name in names]
    return table.hstack(pl.DataFrame(embeddings.spread, schema=deviations, orient="row"))


class Output(NamedTuple):
    """Name of a table; probabilities and frequencies have one for each target."""

    kind: Literal["predictions", "probabilities", "embeddings", "quantiles", "frequencies"]
    target: str = ""


Outputs = Mapping[Output, pl.DataFrame]


def outputs(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    """The results for each part of the data; every part holds the same tables.

    Args:
      config: What to predict; it does not contradict the model.
      engine: The model.
      source: The data.
    """
    return (_embeddings if config.model_type == "embedding" else _forecasts)(config, engine, source)


def _embeddings(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    with progress("Inference", source.total, "windows") as bar:
        for windows in source.parts():
            embeddings = embed(
                engine,
                windows,
                batch_size=config.inference_batch_size,
                latest=config.forecast_from == "latest",
                bar=bar,
            )
            yield {Output("embeddings"): embedding_table(embeddings, source.keys)}


def _forecasts(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    """The predictions, and the probabilities of each target that are asked for."""
    card = engine.card
    heads = card.column_schema.target_heads
    targets = config.target_columns or list(heads)
    further = [f"{name}_{what}" for name in targets for what in ("mean", "std") if config.dropout_samples]
    for title in ["sample", *further] if config.autoregression_samples else further:
        if title in heads:
            logger.info("A target is called %r, so the column of that name gets an underscore.", title)
    with_classes = [name for name in targets if DISTRIBUTIONS[heads[name]].has_classes]
    shown = with_classes if config.output_probabilities else []
    keys = source.keys
    has_ids = keys.columns.are_own if config.result_ids is None else config.result_ids
    # All targets are read, whichever are asked for: they may have to be fed back, and draws stay the same.
    read = Reader(
        heads,
        sampled=[
            name
            for name in config.sample_from_distribution_columns or ()
            if DISTRIBUTIONS[heads[name]].is_drawn
        ],
        seed=config.seed,
        rule=SamplingRule(config.temperature, config.top_k, config.top_p),
        keep_log_probs=shown,
        unknown=config.predict_unknown or card.is_sequifiers,
    )
    steps = (config.autoregression_extra_steps or 0) if config.autoregression else 0
    # Autoregression has a bar of its own, and a terminal shows one at a time.
    with nullcontext() if config.autoregression else progress("Inference", source.total, "windows") as bar:
        for windows in source.parts():
            result = forecast(
                engine,
                windows,
                read,
                batch_size=config.inference_batch_size,
                extra_steps=steps,
                samples=config.autoregression_samples,
                cache=config.generation_cache,
                latest=config.forecast_from == "latest",
                bar=bar,
            )
            tables = {
                Output("probabilities", name): probability_table(
                    result, card, name, keys if has_ids else None
                )
                for name in shown
            }
            predictions = prediction_table(result, card, targets, keys, map_to_id=config.map_to_id)
            yield {Output("predictions"): predictions, **tables, **_summaries(result, card, targets, keys)}


def _summaries(result: Forecast, card: ModelCard, targets: Sequence[str], keys: Keys) -> Outputs:
    """Summaries of samples, where there are any."""
    if result.sample is None:
        return {}
    counted = [name for name in targets if distribution_of(card.column_schema, name).has_classes]
    real = [name for name in targets if name not in counted]
    return {
        **({Output("quantiles"): quantile_table(result, card, real, keys)} if real else {}),
        **{Output("frequencies", name): frequency_table(result, card, name, keys) for name in counted},
    }
