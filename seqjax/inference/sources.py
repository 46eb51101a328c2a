"""Where windows come from: preprocessed data or raw tables, a part at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqjax.artifacts.card import ModelCard
from seqjax.config.schema import ColumnKind
from seqjax.data.formats import Padding, is_by_file
from seqjax.data.streams import in_parts, window_parts
from seqjax.errors import DataError
from seqjax.windows.windows import Windows

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

    by_file = is_by_file(read_format)

    def parts() -> Iterator[Windows]:
        empty = True
        for windows in window_parts(
            path, read_format, column_kinds=kinds, padding=padding, n_classes=schema.n_classes
        ):
            if len(windows):
                empty = False
                whole = windows.crop(schema.seq_length)
                yield from [whole] if by_file else in_parts(whole, windows_at_once(card))
        if empty:
            raise DataError(f"{path} holds no windows, so there is nothing to predict.")

    return Source(parts, by_file=by_file)


def windows_at_once(card: ModelCard) -> int:
    """How many windows to infer before results are written: as many as have outputs of a bounded size."""
    schema, spec = card.column_schema, card.model_spec
    if card.kind == "embedding":
        width = spec.dim_model * len(card.embedding_layers or (0,))
    else:
        width = sum(schema.head_width(name) for name in schema.targets)
    return max(NUMBERS_AT_ONCE // (width * spec.prediction_length), 1)
