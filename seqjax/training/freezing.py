"""Which parameters `training_spec.freeze` keeps as they are, by patterns over sequifier's names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import jax

from seqjax.config.base import suggestion
from seqjax.config.schema import Schema
from seqjax.errors import ConfigError, Problem
from seqjax.optim.rule import Path
from seqjax.training.state import Params


def frozen_parameters(patterns: Sequence[str], params: Params, schema: Schema) -> frozenset[Path]:
    """The parameters whose names match a pattern.

    Args:
      patterns: Names such as decoder.price.bias, in which * stands for anything and ? for any character.
      params: The model's parameters, or their shapes.
      schema: Its columns.

    Raises:
      ConfigError: A pattern matches nothing, or nothing is left to train.
    """
    paths = [
        tuple(str(key.key) for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    names = {schema.parameter_name(path): path for path in paths}
    problems, frozen = [], set()
    for index, pattern in enumerate(patterns):
        matching = {path for name, path in names.items() if fnmatchcase(name, pattern)}
        frozen |= matching
        if not matching:
            hint = suggestion(pattern, list(names))
            problems.append(
                Problem(f"training_spec.freeze.{index}", f"{pattern!r} is the name of no parameter. {hint}")
            )
    if not problems and len(frozen) == len(paths):
        problems = [
            Problem("training_spec.freeze", "names all parameters, so that nothing is left to train.")
        ]
    if problems:
        raise ConfigError("The training configuration", problems)
    return frozenset(frozen)
