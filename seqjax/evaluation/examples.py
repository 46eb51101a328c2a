"""A few windows, drawn at random, with what was predicted to follow them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

from seqjax.artifacts.card import ModelCard
from seqjax.config.metadata import Statistics
from seqjax.data.columns import denormalise
from seqjax.data.keys import NUMBERS, Keys
from seqjax.evaluation.result import Example, Guess, Value
from seqjax.inference.tables import labels_of
from seqjax.model.distributions import distribution_of, without_unknown
from seqjax.windows.windows import Batch, Windows


class RandomRows:
    """At most `size` rows out of all that were added, each equally likely to be kept."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._priority = np.zeros(0)
        self._rows: dict[str, np.ndarray] = {}

    def add(self, rows: Mapping[str, Shaped[np.ndarray, "N ..."]]) -> None:
        """Adds N rows of the same named arrays each time."""
        if not self._size:
            return
        count = len(next(iter(rows.values())))
        priority = np.concatenate([self._priority, self._rng.random(count)])
        kept = np.sort(np.argsort(priority, kind="stable")[: self._size])
        self._priority = priority[kept]
        held = self._rows or {name: values[:0] for name, values in rows.items()}
        self._rows = {name: np.concatenate([held[name], values])[kept] for name, values in rows.items()}

    def rows(self) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """The rows that were kept, in the order in which they came; empty if none was added."""
        return dict(self._rows)


_DIGITS = 7
"""Of a standard deviation: about as many as standardised values hold."""


def in_table(values: Float[np.ndarray, "n"], statistics: Statistics) -> list[float]:
    """Standardised values in the units of the table, without the digits that only make a report longer."""
    exact = denormalise(values, statistics).tolist()
    if statistics.unit == 0:
        return exact
    places = _DIGITS - 1 - math.floor(math.log10(statistics.unit))
    return [round(value, places) for value in exact]


SHOWN_ITEMS = 8
"""Newest items of a window that are shown."""
SHOWN_CLASSES = 3


class Examples:
    """Draws windows, and keeps what the model says about the newest item of each."""

    def __init__(self, count: int, seed: int, card: ModelCard, targets: Sequence[str]) -> None:
        self._drawn = RandomRows(count, seed)
        self._card = card
        self._targets = targets
        schema = card.column_schema
        self._labels = {
            name: labels_of(card, name) for name, kind in schema.columns.items() if kind == "categorical"
        }

    def add(
        self,
        windows: Windows,
        indices: Int64[np.ndarray, "B"],
        batch: Batch,
        outputs: Mapping[str, Float32[np.ndarray, "B P _"]],
    ) -> None:
        """Adds the windows at `indices`, which are `batch`, and the model's outputs."""
        shown = min(SHOWN_ITEMS, windows.seq_length)
        rows: dict[str, Shaped[np.ndarray, "B ..."]] = {
            "sequence": windows.sequence_id(indices),
            "position": windows.positions(indices, np.array([windows.seq_length]))[:, 0],
            "real": np.minimum(windows.length(indices) - 1, shown),
        }
        for name, values in batch.columns.items():
            rows[f"column {name}"] = values[:, -1 - shown :]
        for name in self._targets:
            newest, row = outputs[name][:, -1], distribution_of(self._card.column_schema, name)
            if name in self._labels:
                probs = np.exp(row.stated(newest.astype(np.float64)))
                ranked = newest if self._card.is_sequifiers else without_unknown(newest)
                likely = np.argsort(-ranked, axis=1, kind="stable")[:, :SHOWN_CLASSES]
                rows[f"likely {name}"] = likely
                rows[f"probability {name}"] = np.take_along_axis(probs, likely, axis=1)
            else:
                rows[f"value {name}"] = row.point(newest)
        self._drawn.add(rows)

    def examples(self, keys: Keys = NUMBERS) -> list[Example]:
        """The windows that were drawn, in the order of the data.

        Args:
          keys: The ids and times of the data.
        """
        rows = self._drawn.rows()
        if not rows:
            return []
        places = zip(*keys.of(rows["sequence"], rows["position"]), strict=True)
        return [self._example(rows, at, place) for at, place in enumerate(places)]

    def _example(
        self, rows: Mapping[str, Shaped[np.ndarray, "N ..."]], at: int, place: tuple[Any, Any]
    ) -> Example:
        real = int(rows["real"][at])
        names = [key.removeprefix("column ") for key in rows if key.startswith("column ")]
        columns = {name: self._values(name, rows[f"column {name}"][at]) for name in names}
        return Example(
            sequence_id=_plain(place[0]),
            item_position=_plain(place[1]),
            window={name: values[len(values) - 1 - real : -1] for name, values in columns.items()},
            targets={name: self._guess(rows, at, name, columns[name][-1]) for name in self._targets},
        )

    def _guess(
        self, rows: Mapping[str, Shaped[np.ndarray, "N ..."]], at: int, name: str, truth: Value
    ) -> Guess:
        if name not in self._labels:
            return Guess(truth, self._values(name, rows[f"value {name}"][at : at + 1])[0], None)
        labels = [self._labels[name][id_] for id_ in rows[f"likely {name}"][at].tolist()]
        likely = dict(zip(labels, rows[f"probability {name}"][at].tolist(), strict=True))
        return Guess(truth, labels[0], likely)

    def _values(self, name: str, values: Shaped[np.ndarray, "n"]) -> list[Value]:
        """Ids or standardised values as users know them."""
        if name in self._labels:
            return [self._labels[name][id_] for id_ in values.tolist()]
        return [*in_table(values, self._card.statistics[name])]


def _plain(key: object) -> int | float | str:
    """An id or a time as JSON has it: dates and times in ISO 8601."""
    return key if isinstance(key, int | float | str) else str(key)
