"""Engines and windows with known numbers, for tests of everything around a model."""

from collections.abc import Callable, Mapping

import numpy as np

from seqjax.artifacts.card import ModelCard
from seqjax.config.metadata import Statistics
from seqjax.config.model import ModelSpec
from seqjax.config.schema import ColumnKind, Schema
from seqjax.windows.windows import Windows, listed

Outputs = dict[str, np.ndarray]


class FakeEngine:
    """Computes its outputs by a function of a batch's inputs and valid mask."""

    def __init__(
        self, card: ModelCard, compute: Callable[[Mapping[str, np.ndarray], np.ndarray], Outputs]
    ) -> None:
        self.card = card
        self.batches: list[int] = []
        self._compute = compute

    def predict(self, inputs: Mapping[str, np.ndarray], valid_mask: np.ndarray) -> Outputs:
        self.batches.append(len(valid_mask))
        return {name: values.astype(np.float32) for name, values in self._compute(inputs, valid_mask).items()}


def fake_card(
    categorical: Mapping[str, Mapping[str, int]],
    real: Mapping[str, Statistics],
    targets: Mapping[str, ColumnKind],
    *,
    seq_length: int = 3,
    prediction_length: int = 1,
) -> ModelCard:
    """A generative card; every column is an input."""
    n_classes = {name: max(ids.values(), default=1) + 1 for name, ids in categorical.items()}
    return ModelCard(
        schema=Schema(
            n_classes=n_classes,
            categorical_inputs=tuple(categorical),
            real_inputs=tuple(real),
            targets=dict(targets),
            seq_length=seq_length,
        ),
        model_spec=ModelSpec(
            initial_embedding_dim=4,
            dim_model=4,
            n_head=1,
            dim_feedforward=4,
            num_layers=1,
            prediction_length=prediction_length,
        ),
        id_maps={name: dict(ids) for name, ids in categorical.items()},
        statistics=dict(real),
        column_types={**dict.fromkeys(categorical, "Int64"), **dict.fromkeys(real, "Float64")},
    ).of_kind("generative")


def windows_of(
    sequences: Mapping[int, Mapping[str, list]],
    positions: Mapping[int, list[int]],
    *,
    seq_length: int = 3,
    stride: int = 1,
) -> Windows:
    """All windows of L + 1 items of each sequence, `stride` apart; a short sequence gives one, padded.

    Args:
      sequences: Each sequence's columns: ids (int), or standardised values (float).
      positions: Each sequence's item positions.
      seq_length: L.
      stride: Step between the windows of a sequence.
    """
    names = list(next(iter(sequences.values())))
    columns = {
        name: np.array([value for rows in sequences.values() for value in rows[name]]) for name in names
    }
    start, length, sequence_id, subsequence_id, first_position = [], [], [], [], []
    offset = 0
    for number, rows in sequences.items():
        count = len(rows[names[0]])
        for index, first in enumerate(range(0, max(count - seq_length, 1), stride)):
            start.append(offset + first)
            length.append(min(seq_length + 1, count))
            sequence_id.append(number)
            subsequence_id.append(index)
            first_position.append(positions[number][first] - (seq_length + 1 - length[-1]))
        offset += count
    return listed(
        {
            name: values.astype(np.float32 if values.dtype.kind == "f" else np.int8)
            for name, values in columns.items()
        },
        start=np.array(start, np.int64),
        length=np.array(length),
        sequence_id=np.array(sequence_id, np.int64),
        subsequence_id=np.array(subsequence_id, np.int64),
        start_item_position=np.array(first_position, np.int64),
        item_position=np.array([at for number in sequences for at in positions[number]], np.int64),
        seq_length=seq_length,
    )
