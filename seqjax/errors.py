"""Errors for a user's mistakes.

Every error that a user can cause is a `SeqjaxError`. Its text is the whole message: where (file, key, row,
column), what was found, what was allowed, what to do. `cli.py` alone catches it, and prints it without a
traceback.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class SeqjaxError(Exception):
    """A mistake that the user can put right; the message says how."""


class DataError(SeqjaxError):
    """A table, shard or metadata file that cannot be used as it is."""


class ArtifactError(SeqjaxError):
    """A checkpoint or model file that is missing, damaged, or contradicts the configuration."""


class TrainingError(SeqjaxError):
    """A run that cannot go on: a non-finite loss, an empty split, a device that is not there."""


class MissingPackageError(SeqjaxError):
    """Something that was asked for needs a package of one of seqjax's extras, which is not installed."""

    def __init__(self, what: str, *, package: str, extra: str) -> None:
        super().__init__(
            f'{what} needs {package}, which is not installed here: pip install "seqjax[{extra}]".'
        )


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration: the dotted key path and a sentence about it."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(SeqjaxError):
    """Everything that is wrong with one configuration, all at once."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source} has {count}:", *(f"  {problem}" for problem in problems)]))
