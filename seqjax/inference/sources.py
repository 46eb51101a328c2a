"""Sources of windows: preprocessed data or raw tables, a part at a time."""

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seqjax.artifacts.card import ModelCard
from seqjax.config.schema import ColumnKind
from seqjax.data.formats import FORMATS, window_blocks
from seqjax.data.long_format import Padding
from seqjax.errors import DataError
from seqjax.windows.windows import Windows, targets_once

NUMBERS_AT_ONCE = 1 << 25
"""Numbers that a model may return before they are written."""


@dataclass(frozen=True)
class Source:
    """Windows, in parts of whole sequences, so that memory stays bounded."""

    parts: Callable[[], Iterator[Windows]]
    """Reads them from the beginning."""
    total: int | None = None
    """Number of windows, where it is known."""
    by_file: bool = False
    """True where each part is a file whose results have a file of their own."""


def preprocessed_source(
    path: Path,
    read_format: str,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    padding: Padding = "null",
    each_target: bool = False,
) -> Source:
    """The windows of preprocessed data, as a model reads them.

    Args:
      path: The data.
      read_format: A format of preprocessed data.
      card: The model.
      columns: The columns to read; None reads the model's inputs.
      padding: The mark of padded slots in the long format.
      each_target: Whether to cut windows anew, so that each target is predicted once, rather than to take
        them as they are.
    """
    schema = card.column_schema
    kinds: dict[str, ColumnKind] = {name: schema.columns[name] for name in columns or schema.inputs}

    by_file = read_format in FORMATS and FORMATS[read_format].by_file

    def parts() -> Iterator[Windows]:
        empty = True
        for block in window_blocks(
            path, read_format, column_kinds=kinds, padding=padding, n_classes=schema.n_classes
        ):
            windows = replace(block.crop(schema.seq_length), min_history=card.min_history)
            if each_target and len(windows):
                count = card.model_spec.prediction_length
                listed = windows if FORMATS[read_format].native else targets_once(windows, count)
                windows = listed.ending_at_targets(count)
            if len(windows):
                empty = False
                yield from [windows] if by_file else in_parts(windows, windows_at_once(card))
        if empty:
            raise DataError(f"{path} holds no windows, so there is nothing to predict.")

    return Source(parts, by_file=by_file)


def in_parts(windows: Windows, most: int) -> Iterator[Windows]:
    """Windows cut into parts of whole sequences, of at most `most` windows unless a sequence has more.

    Args:
      windows: Windows; where those of a sequence do not lie together, they are one part.
      most: How many a part.
    """
    runs = windows.runs
    begins = np.flatnonzero(np.append(True, runs.sequence_id[1:] != runs.sequence_id[:-1]))
    if len(windows) <= most or len(np.unique(runs.sequence_id[begins])) < len(begins):
        yield windows
        return
    run_ends = [*begins[1:].tolist(), len(runs)]
    ends = [*runs.first_window[begins[1:]].tolist(), len(windows)]
    first = run = 0
    while first < len(windows):
        # The last sequence that ends in time, or else the next one.
        place = max(bisect.bisect_right(ends, first + most) - 1, bisect.bisect_right(ends, first))
        yield replace(windows, runs=runs.taken(slice(run, run_ends[place])))
        first, run = ends[place], run_ends[place]


def windows_at_once(card: ModelCard) -> int:
    """The number of windows to infer before results are written, so that outputs are of a bounded size."""
    schema, spec = card.column_schema, card.model_spec
    if card.kind == "embedding":
        width = spec.dim_model * len(card.embedding_layers or (0,))
    else:
        width = sum(schema.head_width(name) for name in schema.targets)
    return max(NUMBERS_AT_ONCE // (width * spec.prediction_length), 1)
