"""Where windows come from: preprocessed data or raw tables, a part at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from seqjax.artifacts.card import ModelCard
from seqjax.config.schema import ColumnKind
from seqjax.data.dataset import Windows
from seqjax.data.formats import Padding, is_by_file, load_window_files, load_windows
from seqjax.errors import DataError


@dataclass(frozen=True)
class Source:
    """Windows, in parts of whole sequences, so that memory stays bounded."""

    parts: Callable[[], Iterator[Windows]]
    """Reads them from the beginning."""
    total: int | None = None
    """Number of windows, where it is known."""
    by_file: bool = False
    """Whether each part is a file whose results have a file of their own."""


def preprocessed_source(
    path: Path,
    read_format: str,
    card: ModelCard,
    *,
    columns: Sequence[str] | None = None,
    padding: Padding = "null",
) -> Source:
    """The windows of preprocessed data, as a model reads them.

    Args:
      path: The data.
      read_format: A format of preprocessed data.
      card: The model.
      columns: The columns to read; null reads the model's inputs.
      padding: How the long format marks padded slots.
    """
    schema = card.column_schema
    kinds: dict[str, ColumnKind] = {name: schema.columns[name] for name in columns or schema.inputs}

    def parts() -> Iterator[Windows]:
        empty = True
        for windows in _loaded(path, read_format, kinds, schema.n_classes, padding):
            if len(windows):
                empty = False
                yield windows.crop(schema.seq_length)
        if empty:
            raise DataError(f"{path} holds no windows, so there is nothing to predict.")

    return Source(parts, by_file=is_by_file(read_format))


def _loaded(
    path: Path,
    read_format: str,
    kinds: Mapping[str, ColumnKind],
    n_classes: Mapping[str, int],
    padding: Padding,
) -> Iterator[Windows]:
    if is_by_file(read_format):
        yield from load_window_files(path, read_format, column_kinds=kinds, n_classes=n_classes)
    else:
        yield load_windows(path, read_format, column_kinds=kinds, padding=padding, n_classes=n_classes)


def taken(windows: Windows, indices: Int64[np.ndarray, "B"]) -> Windows:
    """Some of the windows, over the same rows."""
    return replace(
        windows,
        start=windows.start[indices],
        length=windows.length[indices],
        sequence_id=windows.sequence_id[indices],
        subsequence_id=windows.subsequence_id[indices],
        start_item_position=windows.start_item_position[indices],
    )
