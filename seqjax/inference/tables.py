"""Result tables: what users read, in their own values and names.

Ids become the original text again, and standardised values become values in original units.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Int64

from seqjax.artifacts.card import ModelCard
from seqjax.data.columns import class_labels, decode_ids, denormalise
from seqjax.inference.forecast import Embeddings, Forecast

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the samples of real targets."""


def prediction_table(
    forecast: Forecast, card: ModelCard, targets: Sequence[str], *, map_to_id: bool
) -> pl.DataFrame:
    """One row a predicted item: sequenceId, itemPosition, `sample` where there are several, then the targets.

    Where passes with dropout were averaged, `<target>_mean` and `<target>_std` (Float32) follow each target:
    of its value in original units, or of the probability of its class.

    Args:
      forecast: What was predicted.
      card: The model's maps and statistics.
      targets: Which targets, in which order.
      map_to_id: Whether to write original values of categorical targets (String) rather than ids (Int64).
    """
    columns = [
        pl.Series("sequenceId", forecast.sequence_id),
        pl.Series("itemPosition", forecast.item_position),
    ]
    if forecast.sample is not None:
        columns.append(pl.Series("sample", forecast.sample).replace(-1, None))
    for name in targets:
        values = forecast.values[name]
        if card.column_schema.targets[name] == "real":
            numbers = denormalise(values, card.statistics[name])
            columns.append(pl.Series(name, numbers.astype(np.float32)))
        elif map_to_id and name in card.id_maps:
            labels = class_labels(card.id_maps[name], card.column_schema.n_classes[name])
            columns.append(decode_ids(values, labels).alias(name))
        else:
            columns.append(pl.Series(name, values, pl.Int64))
        if name in forecast.spread:
            columns += _spread_columns(name, forecast.spread[name], card)
    return pl.DataFrame(columns)


def probability_table(forecast: Forecast, card: ModelCard, target: str) -> pl.DataFrame:
    """One row a predicted item: the probability (Float32) of each class of a categorical target, by label."""
    labels = class_labels(card.id_maps.get(target, {}), card.column_schema.n_classes[target])
    probs = np.exp(forecast.log_probs[target], dtype=np.float64)
    shares = (probs / probs.sum(axis=-1, keepdims=True)).astype(np.float32)
    return pl.DataFrame(shares, schema=labels, orient="row")


def _spread_columns(name: str, moments: Float[np.ndarray, "R moments"], card: ModelCard) -> list[pl.Series]:
    mean, deviation = moments.T
    if card.column_schema.targets[name] == "real":
        mean = denormalise(mean, card.statistics[name])
        deviation = deviation * card.statistics[name].std
    columns = {f"{name}_mean": mean, f"{name}_std": deviation}
    return [pl.Series(title, values.astype(np.float32)) for title, values in columns.items()]


def quantile_table(forecast: Forecast, card: ModelCard, targets: Sequence[str]) -> pl.DataFrame:
    """What the samples of each continued item say about its real targets, in original units.

    Args:
      forecast: What was predicted, with samples.
      card: The model's statistics.
      targets: Real targets.

    Returns:
      One row an item: sequenceId, itemPosition, then for each target `<target>_mean` and the quantiles
      `<target>_q05`, `_q25`, `_q50`, `_q75`, `_q95` (Float32) over the samples, interpolated linearly.
    """
    keys, rows = _items(forecast)
    columns = []
    for name in targets:
        values = denormalise(forecast.values[name][rows], card.statistics[name]).astype(np.float64)
        columns.append(pl.Series(f"{name}_mean", values.mean(axis=1).astype(np.float32)))
        for share, quantile in zip(QUANTILES, np.quantile(values, QUANTILES, axis=1), strict=True):
            columns.append(pl.Series(f"{name}_q{share * 100:02.0f}", quantile.astype(np.float32)))
    return keys.hstack(columns)


def frequency_table(forecast: Forecast, card: ModelCard, target: str) -> pl.DataFrame:
    """One row a continued item: its keys, then the share of samples (Float32) of each class, by label."""
    keys, rows = _items(forecast)
    classes = card.column_schema.n_classes[target]
    shares = class_shares(forecast.values[target][rows], classes)
    labels = class_labels(card.id_maps.get(target, {}), classes)
    return keys.hstack(pl.DataFrame(shares.astype(np.float32), schema=labels, orient="row"))


def class_shares(ids: Int[np.ndarray, "I N"], classes: int) -> Float[np.ndarray, "I {classes}"]:
    """The share of each class among the N samples of I items."""
    flat = ids + classes * np.arange(len(ids))[:, None]
    return np.bincount(flat.reshape(-1), minlength=classes * len(ids)).reshape(-1, classes) / ids.shape[1]


def _items(forecast: Forecast) -> tuple[pl.DataFrame, Int64[np.ndarray, "I N"]]:
    """The keys of the items that were sampled, and the rows of each item's samples."""
    assert forecast.sample is not None
    found = np.flatnonzero(forecast.sample >= 0)
    number = forecast.sample[found]
    # Each sequence's rows lie together, continuation after continuation, all of them equally long.
    steps = int(np.argmax(number > 0)) or len(found)
    rows = found.reshape(-1, number.max() + 1, steps).swapaxes(1, 2).reshape(-1, number.max() + 1)
    first = rows[:, 0]
    keys = {"sequenceId": forecast.sequence_id[first], "itemPosition": forecast.item_position[first]}
    return pl.DataFrame(keys), rows


def embedding_table(embeddings: Embeddings) -> pl.DataFrame:
    """One row a hidden state: sequenceId, subsequenceId, itemPosition, then its components "0", "1", ...

    Where passes with dropout were averaged, the standard deviations "0_std", "1_std", ... follow.
    """
    keys = {
        "sequenceId": embeddings.sequence_id,
        "subsequenceId": embeddings.subsequence_id,
        "itemPosition": embeddings.item_position,
    }
    names = [str(number) for number in range(embeddings.vectors.shape[1])]
    table = pl.DataFrame(keys).hstack(pl.DataFrame(embeddings.vectors, schema=names, orient="row"))
    if embeddings.spread is None:
        return table
    deviations = [f"{name}_std" for name in names]
    return table.hstack(pl.DataFrame(embeddings.spread, schema=deviations, orient="row"))
