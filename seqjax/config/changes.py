"""What differs between two configurations of the same command."""

from collections.abc import Collection, Mapping
from typing import Any

WITHOUT_INFLUENCE = (
    "backend",
    "class_share_log_columns",
    "continue_training",
    "device",
    "device_max_concat_length",
    "distributed",
    "enforce_determinism",
    "keep_checkpoints",
    "load_full_data_to_ram",
    "log_interval",
    "log_to",
    "max_ram_gb",
    "num_workers",
    "save_interval_epochs",
    "save_interval_minutes",
    "save_interval_steps",
    "world_size",
)
"""Keys of `training_spec`, and of a search's `training_hyperparameter_sampling`, that change where, when and
how a training computes, saves and logs, but not what it learns."""


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def changed_keys(
    before: Mapping[str, Any], after: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ: (before, after), null where a key is missing.

    Args:
      before: Nested values, as JSON holds them.
      after: Likewise.
      ignored: Dotted keys that may differ, with all that is below them.
    """
    old, new = flattened(before), flattened(after)
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    free = [key for key in keys if any(key == one or key.startswith(f"{one}.") for one in ignored)]
    return {key: (old.get(key), new.get(key)) for key in keys if key not in free}
