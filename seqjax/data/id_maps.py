"""Id maps that a user prepares: one JSON file a column, {"value": id}, ids from 2 up.

A column that has such a file takes its ids from there alone; values that the file lacks become `other`. Ids
may leave gaps, which cost unused classes.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqjax.config.base import suggestion
from seqjax.config.schema import ColumnKind
from seqjax.data.columns import FIRST_ID
from seqjax.errors import DataError

logger = logging.getLogger(__name__)


def precomputed_maps(
    folder: Path, kinds: Mapping[str, ColumnKind], required: Sequence[str] | None
) -> dict[str, dict[str, int]]:
    """Reads the id maps of a folder that belong to a column.

    Args:
      folder: Holds [COLUMN].json; need not exist.
      kinds: The feature columns.
      required: Columns that must have a map.

    Raises:
      DataError: A file is no id map, a required one is missing, or a map belongs to a real column.
    """
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    for name in required or ():
        if name not in kinds:
            known = suggestion(name, list(kinds))
            raise DataError(f"use_precomputed_maps: no column {name!r} is read. {known}")
        if name not in files:
            raise DataError(
                f"use_precomputed_maps names {name!r}, but {folder / name}.json does not exist. "
                'Create it, as {"value": 2, ...}, or take the column out of the list.'
            )
    maps = {}
    for name, file in files.items():
        if name not in kinds:
            logger.info("%s is not used: no column %r is read.", file, name)
            continue
        if kinds[name] == "real":
            raise DataError(
                f"{file} maps {name!r}, a real column. Remove the file, or write the column as text."
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
