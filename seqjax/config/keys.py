"""The columns that say of which sequence a row is, and when in it."""

from typing import Literal

from pydantic import ValidationInfo, field_validator

from seqjax.config.base import ConfigModel, validate

SEQUENCE_ID, ITEM_POSITION = "sequenceId", "itemPosition"
"""The documented names; columns of these names hold whole numbers unless a configuration names them."""


class KeyColumns(ConfigModel):
    """The key columns of a table: the keys that preprocess, infer and evaluate share."""

    id_column: str | None = None
    """Column of a table that says the sequence of a row: text, numbers, anything. Null is the model's, else
    sequenceId, whole numbers."""
    time_column: str | None = None
    """Column of a table that orders the items of a sequence: whole or decimal numbers, dates, times. Null is
    the model's, else itemPosition, whole numbers."""
    time_format: str | None = None
    """Form of a time_column of text, such as '%d.%m.%Y %H:%M'; null reads 2024-01-31 and 2024-01-31 05:00,
    with seconds and a zone or without."""
    ties: Literal["error", "order"] | None = None
    """Rows of one sequence at one time: an error, or items in the order of the file (order). Null is the
    model's, else an error."""

    @field_validator("time_column")
    @classmethod
    def _two_columns(cls, time_column: str | None, info: ValidationInfo) -> str | None:
        id_column = info.data.get("id_column") or SEQUENCE_ID
        if time_column == id_column or (time_column is None and id_column == ITEM_POSITION):
            raise ValueError(f"must be another column than id_column (both are {id_column!r}).")
        return time_column

    @field_validator("time_format")
    @classmethod
    def _form_of_a_time(cls, time_format: str | None) -> str | None:
        if time_format is not None and "%" not in time_format:
            raise ValueError(f"must say the parts of a time, such as '%d.%m.%Y' (found {time_format!r}).")
        return time_format

    @property
    def are_own(self) -> bool:
        """True if a column is named, so that ids and times are carried through as they are."""
        return self.id_column is not None or self.time_column is not None

    @property
    def names(self) -> tuple[str, str]:
        """The columns of ids and of times."""
        return self.id_column or SEQUENCE_ID, self.time_column or ITEM_POSITION


def key_columns(*sources: KeyColumns) -> KeyColumns:
    """The key columns alone of configurations and metadata; of each key, the first value that is not null."""
    merged: dict[str, str | None] = dict.fromkeys(KeyColumns.model_fields)
    for source in sources:
        # The form is that of the times in a column.
        fits = source.time_column == (merged["time_column"] or source.time_column)
        stated = {name: getattr(source, name) for name in merged if fits or name != "time_format"}
        merged |= {name: value for name, value in stated.items() if merged[name] is None}
    return validate(KeyColumns, merged, "The columns of ids and times")
