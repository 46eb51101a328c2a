"""Result tables: what users read, in their own values and names.

Ids become the original text again, and standardised values become values in original units.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from seqjax.artifacts.card import ModelCard
from seqjax.data.columns import class_labels, decode_ids, denormalise
from seqjax.inference.forecast import Embeddings, Forecast


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
            numbers = denormalise(values, card.statistics[name])
            columns.append(pl.Series(name, numbers.astype(np.float32)))
        elif map_to_id and name in card.id_maps:
            labels = class_labels(card.id_maps[name], card.column_schema.n_classes[name])
            columns.append(decode_ids(values, labels).alias(name))
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
