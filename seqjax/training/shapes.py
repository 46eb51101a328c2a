"""Groups of runs that can be trained together: those whose compiled programs are the same.

Keys that are not compiled in, by their marks (`seqjax.config.changes`), are values that the programs take in,
or never see: learning rates (the whole schedule), dropout, clipping, the optimizer's numbers, those of the
targets, the key, which batches come when, and for how long. `shape_of` is all the rest, and `values_of` those
numbers as the step takes them in.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from seqjax.config.changes import flattened, marked_keys, without
from seqjax.config.optimization import cycles_momentum, optimizer_settings
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.training.objective import Target, build_targets
from seqjax.training.step import Values

T = TypeVar("T")

_NOT_COMPILED = marked_keys(TrainConfig, lambda mark: not mark.is_compiled)
# Where one of these is 0 there is less state, so whether it is 0 is compiled in.
_SHAPES_STATE = ("momentum", "dampening", "lr_decay")


def shape_of(config: TrainConfig) -> str:
    """A text of all that compiled programs depend on; equal for runs that can be trained together."""
    spec = config.training_spec
    settings = vars(optimizer_settings(spec.optimizer))
    compiled = {
        **without(flattened(config.model_dump(mode="json")), _NOT_COMPILED),
        "momentum moves": cycles_momentum(spec.scheduler),
        "optimizer": {
            "name": spec.optimizer.name,
            **{key: value for key, value in settings.items() if not _is_traced(value)},
            **{key: bool(settings[key]) for key in _SHAPES_STATE if key in settings},
        },
    }
    return json.dumps(compiled, sort_keys=True, default=str)


def grouped_by_shape(runs: Sequence[tuple[T, TrainConfig]]) -> list[list[T]]:
    """The runs in groups that can be trained together, in the order of each group's first run."""
    groups: dict[str, list[T]] = {}
    for run, config in runs:
        groups.setdefault(shape_of(config), []).append(run)
    return list(groups.values())


def values_of(configs: Sequence[TrainConfig], schema: Schema) -> list[Values]:
    """The numbers of each run of a group in which the group's runs differ; the others can be compiled in.

    Args:
      configs: The runs, of one shape.
      schema: Their columns.

    Returns:
      For each run the same nested names, with numbers of the same shapes.
    """
    numbers: list[Values] = [flatten_dict(_numbers(config.training_spec, schema)) for config in configs]
    first = numbers[0]
    same = {path for path in first if all(np.array_equal(first[path], own[path]) for own in numbers)}
    return [unflatten_dict({path: own[path] for path in sorted(own.keys() - same)}) for own in numbers]


def _numbers(spec: TrainingSpec, schema: Schema) -> dict[str, Any]:
    """All numbers that a run's step can take in."""
    settings = vars(optimizer_settings(spec.optimizer))
    return {
        "dropout": spec.dropout,
        # A gradient's norm is below infinity, so that it is never scaled.
        "clip": float("inf") if spec.gradient_clip is None else spec.gradient_clip,
        "optimizer": {key: value for key, value in settings.items() if _is_traced(value)},
        "targets": {
            target.name: _target_numbers(target, schema.n_classes.get(target.name, 1))
            for target in build_targets(schema, spec)
        },
    }


def _target_numbers(target: Target, classes: int) -> dict[str, float | Float[np.ndarray, "C"]]:
    numbers = {key: value for key, value in vars(target).items() if not isinstance(value, str)}
    if numbers["class_weights"] is None:
        numbers["class_weights"] = np.ones(classes, np.float32)
    return numbers


def _is_traced(value: object) -> bool:
    """Tells whether an optimizer's argument is a number, or several, that the step can take in."""
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_traced, value))
    return isinstance(value, float)
