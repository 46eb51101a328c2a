"""Learning id maps and statistics from a stream of rows.

`Learner` takes the rows in chunks, in order, and keeps what it needs of them: the distinct values of a
categorical column (and how often each occurs, where only the most frequent ones are kept), and the running
mean and deviation of a real one. Its result depends on where chunks end in the last bits of a number, so
chunks must not depend on chance.

A user may prepare the id map of a column: a JSON file, {"value": id}, ids from 2 up. The column takes its ids
from there alone; values that the file lacks become `other`. Ids may leave gaps, which cost unused classes.
"""

import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

from seqjax.config.base import suggestion
from seqjax.config.metadata import Statistics
from seqjax.config.names import file_names
from seqjax.config.schema import ColumnKind, ColumnRole
from seqjax.data.columns import FIRST_ID, Encoding, plain
from seqjax.data.doubts import Steps, steps, tell
from seqjax.errors import DataError

logger = logging.getLogger(__name__)

VALUE, COUNT = "value", "count"


_ROUNDING = 4
"""Distances between neighbouring floats by which the values of a constant column may differ."""


@dataclass(frozen=True)
class Moments:
    """Number, mean and sample standard deviation of some values, and the smallest and the largest of them."""

    n: int = 0
    mean: float = 0.0
    std: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def plus(self, other: "Moments") -> "Moments":
        """The moments of both together."""
        n, parts = self.n + other.n, (other, self)
        if n == 0:
            return self
        low, high = min(self.low, other.low), max(self.high, other.high)
        scale = _power_within(low, high)
        mean = sum(part.n * (part.mean * scale) for part in parts) / n
        spread = sum(
            (part.n - 1) * (part.std * scale) ** 2 + part.n * (part.mean * scale - mean) ** 2
            for part in parts
            if part.n
        )
        std = math.sqrt(spread / (n - 1)) if n > 1 else 0.0
        return Moments(n, mean / scale, std / scale, low, high)

    @property
    def is_constant(self) -> bool:
        """True if the values are one, but for rounding; whole numbers are never rounded."""
        reach = self.high - self.low
        return reach <= _ROUNDING * math.ulp(max(abs(self.low), abs(self.high))) and reach < 1


@dataclass
class _Values:
    """The distinct values of a column, ascending, with their numbers of rows if `counted`."""

    counted: bool
    frames: list[pl.DataFrame] = field(default_factory=list)
    """The merged values, if there are any, then those that wait to be."""
    n_merged: int = 0
    n_waiting: int = 0

    def add(self, values: pl.DataFrame) -> None:
        """Takes the distinct values of a chunk; they are merged when they are more than those that are."""
        self.frames.append(values)
        self.n_waiting += len(values)
        if self.n_waiting > self.n_merged:
            self.merge()

    def merge(self) -> pl.DataFrame:
        """All values so far."""
        together = pl.concat(self.frames)
        if self.counted:
            together = together.group_by(VALUE).agg(pl.col(COUNT).sum())
        merged = together.unique().sort(VALUE)
        self.frames, self.n_merged, self.n_waiting = [merged], len(merged), 0
        return merged


@dataclass(frozen=True)
class ChunkSummary:
    """The summary of a chunk: distinct values and moments by column."""

    values: dict[str, pl.DataFrame]
    moments: dict[str, Moments]
    steps: dict[str, Steps] = field(default_factory=dict)


class Learner:
    """Id maps and statistics of the rows that it is shown."""

    def __init__(
        self,
        kinds: Mapping[str, ColumnKind],
        *,
        given: Mapping[str, Mapping[str, int]] | None = None,
        max_categories: Mapping[str, int] | None = None,
        decided: Collection[str] = (),
    ) -> None:
        """Nothing learnt yet.

        Args:
          kinds: The columns.
          given: Maps of columns about which nothing is to be learnt.
          max_categories: How many values of a column get an id of their own; the rest become `other`.
          decided: Columns that the user says are categorical.
        """
        self._kinds = dict(kinds)
        self._given = dict(given or {})
        self._most = dict(max_categories or {})
        self._values = {
            name: _Values(name in self._most)
            for name, kind in self._kinds.items()
            if kind == "categorical" and name not in self._given
        }
        self._moments = {name: Moments() for name, kind in self._kinds.items() if kind == "real"}
        self._doubted = [name for name in self._values if name not in {*self._most, *decided}]
        self._steps: dict[str, Steps] = {}

    def look(self, features: pl.DataFrame, sequence_id: Int64[np.ndarray, "N"] | None = None) -> ChunkSummary:
        """Summarises a chunk; changes nothing, so that several may run at once.

        Args:
          features: The rows.
          sequence_id: The sequence of each, where doubts about categories are wanted.
        """
        values = {}
        for name, known in self._values.items():
            column = plain(features[name]).drop_nulls().alias(VALUE)
            values[name] = column.value_counts(name=COUNT) if known.counted else column.unique().to_frame()
        real = {name: moments(features[name]) for name, kind in self._kinds.items() if kind == "real"}
        if sequence_id is None:
            return ChunkSummary(values, real)
        doubted = [features[name] for name in self._doubted]
        whole = {
            column.name: moments(column.cast(pl.Float64)) for column in doubted if column.dtype.is_integer()
        }
        return ChunkSummary(
            values, real | whole, {column.name: steps(column, sequence_id) for column in doubted}
        )

    def add(self, summary: ChunkSummary) -> None:
        """Learns from a chunk."""
        for name, values in summary.values.items():
            self._values[name].add(values)
        for name, further in summary.moments.items():
            self._moments[name] = self._moments.get(name, Moments()).plus(further)
        for name, more in summary.steps.items():
            self._steps[name] = self._steps.get(name, Steps()).plus(more)

    def encoding(self) -> Encoding:
        """The result, columns in the order in which they were named."""
        id_maps, statistics = {}, {}
        for name, kind in self._kinds.items():
            if kind == "real":
                statistics[name] = _statistics(name, self._moments[name])
            elif name in self._given:
                id_maps[name] = dict(self._given[name])
            else:
                id_maps[name] = self._id_map(name)
                if name in self._steps:
                    std = self._moments[name].std if name in self._moments else None
                    tell(name, len(id_maps[name]), self._steps[name], std)
        return Encoding(id_maps, statistics)

    def _id_map(self, name: str) -> dict[str, int]:
        values = self._values[name].merge()
        if values.is_empty():
            logger.warning("Column %r holds no value in the rows that its id map is taken from.", name)
        most = self._most.get(name)
        if most is not None and len(values) > most:
            logger.info("Column %r: %d of its %d values get an id.", name, most, len(values))
            # A stable sort, so that of equally frequent values the smaller is kept.
            values = values.sort(COUNT, descending=True, maintain_order=True).head(most).sort(VALUE)
        texts = values[VALUE].cast(pl.String).to_list()
        return {text: number for number, text in enumerate(texts, start=FIRST_ID)}


def moments(column: pl.Series) -> Moments:
    """The moments of the values of a real column; missing ones are left out."""
    column = column.drop_nulls().cast(pl.Float64).rechunk()
    n = len(column)
    if n == 0:
        return Moments()
    low, high = _number(column.min()), _number(column.max())
    scale = _power_within(low, high)
    scaled = column * scale
    std = _number(scaled.std(ddof=1)) if n > 1 else 0.0
    return Moments(n, _number(scaled.mean()) / scale, std / scale, low, high)


def _power_within(low: float, high: float) -> float:
    """The power of two by which numbers from `low` to `high` are about 1.

    It changes no digit of them, and their squares stay within the range of floats.
    """
    return 2.0 ** max(-1000, min(1000, -math.frexp(max(abs(low), abs(high)))[1]))


def _statistics(name: str, summary: Moments) -> Statistics:
    if summary.n == 0:
        raise DataError(
            f"Column {name!r} holds no number in the rows that its mean is taken from. Leave it out of "
            "selected_columns, or set fit_on: all."
        )
    if not (math.isfinite(summary.mean) and math.isfinite(summary.std)):
        raise DataError(
            f"The values of column {name!r} are too large to standardise (mean {summary.mean}, standard "
            f"deviation {summary.std}). Divide the column by a constant."
        )
    if summary.is_constant:
        logger.warning(
            "Column %r is constant (%.15g) in the rows that its mean is taken from: it is stored as the "
            "difference from that, on a scale of 1.",
            name,
            summary.mean,
        )
        return Statistics(std=0.0, mean=summary.low if summary.low == summary.high else summary.mean)
    return Statistics(std=summary.std, mean=summary.mean)


def _number(statistic: object) -> float:
    return float(statistic) if isinstance(statistic, (int, float)) else math.nan


# Maps that a user prepares
# ------------------------------------------------------------------------------------


def precomputed_maps(
    folder: Path, columns: Sequence[str], roles: Mapping[str, ColumnRole], required: Sequence[str] | None
) -> dict[str, dict[str, int]]:
    """Reads the id maps of a folder that belong to a column.

    Args:
      folder: Holds [COLUMN].json; need not exist.
      columns: The feature columns.
      roles: What the user says of columns.
      required: Columns that must have a map.

    Raises:
      DataError: A file is no id map, a required one is missing, or a map belongs to a real column.
    """
    column_of = {part: name for name, part in file_names(columns).items()}
    files = {column_of.get(file.stem, file.stem): file for file in sorted(folder.glob("*.json"))}
    for name in required or ():
        if name not in columns:
            known = suggestion(name, list(columns))
            raise DataError(f"use_precomputed_maps: no column {name!r} is read. {known}")
        if name not in files:
            place = folder / f"{file_names(columns)[name]}.json"
            raise DataError(
                f"use_precomputed_maps names {name!r}, but {place} does not exist. "
                'Create it, as {"value": 2, ...}, or take the column out of the list.'
            )
    maps = {}
    for name, file in files.items():
        if name not in columns:
            logger.info("%s is not used: no column %r is read.", file, name)
            continue
        if roles.get(name) == "real":
            raise DataError(
                f"{file} maps {name!r}, a real column (column_roles). Remove the file, or the role."
            )
        maps[name] = read_id_map(file)
        logger.info("Column %r takes its ids from %s.", name, file)
    return maps


def read_id_map(file: Path) -> dict[str, int]:
    """The id map in a JSON file, checked."""
    try:
        id_map = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}.") from error
    remedy = f"It must map every value to a whole number of its own, from {FIRST_ID} up."
    if not isinstance(id_map, dict) or not id_map:
        raise DataError(f"{file} is no id map: it holds no values. {remedy}")
    owner: dict[int, str] = {}
    for text, number in id_map.items():
        if type(number) is not int or not FIRST_ID <= number < 2**31:
            raise DataError(f"{file}: {text!r} has the id {number!r}. {remedy}")
        if number in owner:
            raise DataError(f"{file}: {owner[number]!r} and {text!r} have the same id, {number}. {remedy}")
        owner[number] = text
    return id_map
