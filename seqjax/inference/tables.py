"""Result tables: what users read, in their own values and names.

Ids become the original text again, with `unknown` for id 0 and `other` for id 1; standardised values become
values in original units. Where a category of the data is itself called `unknown` or `other`, it keeps its
name and ours gets underscores, so that both can be told apart.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float32

from seqjax.artifacts.card import ModelCard
from seqjax.config.metadata import Statistics
from seqjax.inference.forecast import Embeddings, Forecast

RESERVED = ("unknown", "other")
EPSILON = 1e-9


def class_labels(id_map: Mapping[str, int], n_classes: int) -> list[str]:
    """The label of each class, all different.

    Args:
      id_map: Value to id, from 2 up.
      n_classes: Number of classes; an id without a value is labelled by its number.
    """
    by_id = {id_: value for value, id_ in id_map.items()}
    labels: list[str] = []
    taken = set(id_map)
    for id_ in range(n_classes):
        label = by_id.get(id_)
        if label is None:
            label = RESERVED[id_] if id_ < len(RESERVED) else str(id_)
            while label in taken:
                label += "_"
            taken.add(label)
        labels.append(label)
    return labels


def prediction_table(
    forecast: Forecast, card: ModelCard, targets: Sequence[str], *, map_to_id: bool
) -> pl.DataFrame:
    """One row a predicted item: sequenceId, itemPosition, then the targets in order.

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
    for name in targets:
        values = forecast.values[name]
        if card.column_schema.targets[name] == "real":
            columns.append(pl.Series(name, original_units(values, card.statistics[name])))
        elif map_to_id and name in card.id_maps:
            labels = pl.Series(class_labels(card.id_maps[name], card.column_schema.n_classes[name]))
            columns.append(labels.gather(values).alias(name))
        else:
            columns.append(pl.Series(name, values, pl.Int64))
    return pl.DataFrame(columns)


def probability_table(forecast: Forecast, card: ModelCard, target: str) -> pl.DataFrame:
    """One row a predicted item: the probability (Float32) of each class of a categorical target, by label."""
    labels = class_labels(card.id_maps.get(target, {}), card.column_schema.n_classes[target])
    probs = np.exp(forecast.log_probs[target], dtype=np.float64)
    shares = (probs / probs.sum(axis=-1, keepdims=True)).astype(np.float32)
    return pl.DataFrame(shares, schema=labels, orient="row")


def embedding_table(embeddings: Embeddings) -> pl.DataFrame:
    """One row a hidden state: sequenceId, subsequenceId, itemPosition, then its components "0", "1", ..."""
    keys = {
        "sequenceId": embeddings.sequence_id,
        "subsequenceId": embeddings.subsequence_id,
        "itemPosition": embeddings.item_position,
    }
    names = [str(number) for number in range(embeddings.vectors.shape[1])]
    return pl.DataFrame(keys).hstack(pl.DataFrame(embeddings.vectors, schema=names, orient="row"))


def original_units(values: Float32[np.ndarray, "R"], statistics: Statistics) -> Float32[np.ndarray, "R"]:
    """Undoes the standardisation of a real column."""
    wide = values.astype(np.float64) * (statistics.std - EPSILON) + statistics.mean
    return wide.astype(np.float32)
