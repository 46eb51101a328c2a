"""Which runs can be trained together: those whose compiled programs are the same.

What differs between the runs of one group is values that the programs take in: learning rates (the whole
schedule), dropout, clipping, the optimizer's numbers, weights of losses and classes, label smoothing, the
key, which batches come when, and for how long. `shape_of` is all the rest, and `values_of` those numbers as
the step takes them in.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float

from seqjax.config.optimization import cycles_momentum, optimizer_settings
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig, TrainingSpec
from seqjax.training.objective import build_targets

Values: TypeAlias = dict[str, Any]
"""Numbers of a run by name, as `seqjax.training.step.Constants.values` has them."""
Run = TypeVar("Run")

# Keys that no compiled program depends on.
_FREE = ("model_name", "seed", "inference_batch_size")
_FREE_STARTS = "export_"
_FREE_IN_TRAINING = (
    "backend",
    "class_weights",
    "continue_training",
    "device_max_concat_length",
    "dropout",
    "early_stopping_epochs",
    "epochs",
    "gradient_clip",
    "keep_checkpoints",
    "label_smoothing",
    "learning_rate",
    "loss_weights",
    "optimizer",
    "save_interval_epochs",
    "scheduler",
    "scheduler_step_on",
    "world_size",
)
# Where one of these is 0 there is less state, so whether it is 0 is compiled in.
_SHAPES_STATE = ("momentum", "dampening", "lr_decay")


def shape_of(config: TrainConfig) -> str:
    """What the compiled programs of a run depend on; equal for runs that can be trained together."""
    values = config.model_dump(mode="json")
    kept = {
        key: value for key, value in values.items() if key not in _FREE and not key.startswith(_FREE_STARTS)
    }
    training = values["training_spec"]
    kept["training_spec"] = {key: value for key, value in training.items() if key not in _FREE_IN_TRAINING}
    settings = optimizer_settings(config.training_spec.optimizer)
    kept["momentum moves"] = cycles_momentum(config.training_spec.scheduler)
    kept["optimizer"] = {
        "name": config.training_spec.optimizer.name,
        **{
            key: bool(value) if key in _SHAPES_STATE else value
            for key, value in vars(settings).items()
            if key in _SHAPES_STATE or not _is_traced(value)
        },
    }
    return json.dumps(kept, sort_keys=True, default=str)


def grouped_by_shape(runs: Sequence[tuple[Run, TrainConfig]]) -> list[list[Run]]:
    """The runs in groups that can be trained together, in the order of each group's first run."""
    groups: dict[str, list[Run]] = {}
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
    whole = [_all_values(config.training_spec, schema) for config in configs]
    differing = {
        path
        for path in _paths(whole[0])
        if any(_differ(_at(whole[0], path), _at(one, path)) for one in whole)
    }
    return [_only(one, differing) for one in whole]


def _all_values(spec: TrainingSpec, schema: Schema) -> Values:
    settings = optimizer_settings(spec.optimizer)
    targets = build_targets(schema, spec)
    return {
        "dropout": spec.dropout,
        # A gradient's norm is below infinity, so that it is never scaled.
        "clip": float("inf") if spec.gradient_clip is None else spec.gradient_clip,
        "optimizer": {key: value for key, value in vars(settings).items() if _is_traced(value)},
        "loss_weight": {target.name: target.loss_weight for target in targets},
        "label_smoothing": {
            target.name: target.label_smoothing
            for target in targets
            if schema.targets[target.name] == "categorical"
        },
        "class_weights": {
            target.name: np.ones(schema.n_classes[target.name], np.float32)
            if target.class_weights is None
            else np.asarray(target.class_weights)
            for target in targets
            if schema.targets[target.name] == "categorical"
        },
    }


def _is_traced(value: object) -> bool:
    """Whether an optimizer's argument is a number, or several, that the step can take in."""
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_traced, value))
    return isinstance(value, float)


def _paths(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, value in values.items():
        found += [(name, *rest) for rest in _paths(value)] if isinstance(value, Mapping) else [(name,)]
    return found


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> float | Float[np.ndarray, "C"]:
    found: Any = values
    for name in path:
        found = found[name]
    return found


def _differ(one: object, other: object) -> bool:
    return not np.array_equal(np.asarray(one), np.asarray(other))


def _only(values: Mapping[str, Any], paths: set[tuple[str, ...]]) -> Values:
    kept: Values = {}
    for path in sorted(paths):
        section = kept
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = _at(values, path)
    return kept
