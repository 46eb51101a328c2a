"""A covering array of architectures: every pair of choices occurs in at least one of them.

Any two choices that do not get on with each other meet in some row, with 16 models instead of 9216. Sizes
are small and mostly prime, so that an axis taken for another has the wrong length. The names of columns are
awkward on purpose: a dot, a space, a method of dict.
"""

import itertools
from typing import NamedTuple

import numpy as np

from seqjax.config.model import ModelSpec
from seqjax.config.schema import ColumnKind, Schema

CHOICES: dict[str, tuple] = {
    "positions": ("learned", "rope"),
    "attention": ("mha", "mqa", "gqa"),
    "activation": ("swiglu", "gelu", "relu"),
    "normalization": ("rmsnorm", "layer_norm"),
    "norm_first": (True, False),
    "joint": (False, True),
    "columns": ("categorical", "real", "mixed", "direct"),
    "targets": ("categorical", "real", "both", "outside"),
    "prediction_length": (1, 3),
    "mask_padding": (True, False),
}
"""Direct columns hold a real one that has no encoder (width 1); outside targets are no inputs."""

ROWS = (
    ("learned", "gqa", "relu", "layer_norm", False, True, "categorical", "categorical", 1, True),
    ("rope", "mha", "relu", "rmsnorm", False, True, "categorical", "real", 1, True),
    ("learned", "gqa", "swiglu", "layer_norm", True, True, "categorical", "both", 3, True),
    ("rope", "mqa", "gelu", "layer_norm", False, False, "categorical", "outside", 1, False),
    ("rope", "gqa", "gelu", "rmsnorm", False, True, "real", "categorical", 3, False),
    ("learned", "mqa", "swiglu", "rmsnorm", True, False, "real", "real", 3, True),
    ("learned", "mha", "gelu", "layer_norm", False, False, "real", "both", 1, True),
    ("learned", "mqa", "relu", "layer_norm", True, False, "real", "outside", 1, True),
    ("rope", "mha", "swiglu", "rmsnorm", True, True, "mixed", "categorical", 1, True),
    ("learned", "mqa", "gelu", "layer_norm", True, True, "mixed", "real", 3, True),
    ("rope", "mqa", "swiglu", "rmsnorm", True, False, "mixed", "both", 3, False),
    ("learned", "gqa", "relu", "layer_norm", False, True, "mixed", "outside", 1, True),
    ("learned", "mqa", "gelu", "layer_norm", True, False, "direct", "categorical", 1, True),
    ("rope", "gqa", "relu", "rmsnorm", True, False, "direct", "real", 3, False),
    ("rope", "mqa", "relu", "layer_norm", True, True, "direct", "both", 3, True),
    ("learned", "mha", "swiglu", "rmsnorm", False, False, "direct", "outside", 3, False),
)

SEQ_LENGTH = 6
N_CLASSES = {"item": 5, "shop.id": 7, "next label": 7}

INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "categorical": (("item", "shop.id"), ()),
    "real": ((), ("price", "items")),
    "mixed": (("item", "shop.id"), ("price",)),
    "direct": (("item",), ("price", "items")),
}
TARGETS: dict[str, dict[str, ColumnKind]] = {
    "categorical": {"item": "categorical"},
    "real": {"price": "real"},
    "both": {"price": "real", "shop.id": "categorical", "item": "categorical", "items": "real"},
    "outside": {"next value": "real", "next label": "categorical"},
}


class Architecture(NamedTuple):
    """A model to test: `id` names its choices, `schema` and `spec` are what the package takes."""

    id: str
    schema: Schema
    spec: ModelSpec


class RandomBatch(NamedTuple):
    """Numpy arrays of a batch: padded slots hold 0, the first window is full, the last one nearly empty."""

    inputs: dict[str, np.ndarray]
    """Each input column, (B, T) int32 ids or float32 values."""
    valid_mask: np.ndarray
    """(B, T) bool: which slots hold a real item."""
    targets: dict[str, np.ndarray]
    """Each target at each position, (B, T) int32 ids or float32 values."""


def architectures() -> list[Architecture]:
    """The rows of the covering array, as models."""
    return [_architecture(dict(zip(CHOICES, row, strict=True))) for row in ROWS]


def random_batch(architecture: Architecture, batch: int, seed: int) -> RandomBatch:
    """A batch of left-padded windows that fits the architecture."""
    rng, schema = np.random.default_rng(seed), architecture.schema
    padding = rng.integers(0, schema.seq_length, batch)
    padding[0], padding[-1] = 0, schema.seq_length - 1
    valid = np.arange(schema.seq_length) >= padding[:, None]

    def column(name: str) -> np.ndarray:
        if schema.columns[name] == "categorical":
            ids = rng.integers(0, schema.n_classes[name], valid.shape)
            return np.where(valid, ids, 0).astype(np.int32)
        return np.where(valid, rng.normal(size=valid.shape), 0).astype(np.float32)

    return RandomBatch(
        {name: column(name) for name in schema.inputs}, valid, {name: column(name) for name in schema.targets}
    )


def uncovered_pairs() -> set[tuple[str, object, str, object]]:
    """The pairs of choices that no row holds."""
    names = list(CHOICES)
    return {
        (names[first], one, names[second], other)
        for first, second in itertools.combinations(range(len(names)), 2)
        for one, other in itertools.product(CHOICES[names[first]], CHOICES[names[second]])
        if not any(row[first] == one and row[second] == other for row in ROWS)
    }


def _architecture(choice: dict) -> Architecture:
    categorical, real = INPUTS[choice["columns"]]
    targets = TARGETS[choice["targets"]]
    classes = {*categorical, *(name for name, kind in targets.items() if kind == "categorical")}
    # Heads are 5 wide, but rotary positions need an even width.
    dim = 24 if choice["positions"] == "rope" else 20
    joint_width = 14 if choice["columns"] == "categorical" else 13
    width = joint_width if choice["joint"] else dim
    spec = ModelSpec(
        initial_embedding_dim=width,
        joint_embedding_dim=dim if choice["joint"] else None,
        feature_embedding_dims=_feature_dims(choice["columns"], width),
        dim_model=dim,
        n_head=4,
        n_kv_heads={"mha": None, "mqa": 1, "gqa": 2}[choice["attention"]],
        dim_feedforward=17,
        num_layers=2,
        prediction_length=choice["prediction_length"],
        activation_fn=choice["activation"],
        normalization=choice["normalization"],
        positional_encoding=choice["positions"],
        attention_type=choice["attention"],
        norm_first=choice["norm_first"],
        mask_padding=choice["mask_padding"],
    )
    schema = Schema(
        n_classes={name: count for name, count in N_CLASSES.items() if name in classes},
        categorical_inputs=categorical,
        real_inputs=real,
        targets=targets,
        seq_length=SEQ_LENGTH,
    )
    return Architecture(_name(choice), schema, spec)


def _feature_dims(columns: str, width: int) -> dict[str, int] | None:
    if columns == "mixed":
        return {"item": width - 8, "shop.id": 5, "price": 3}
    if columns == "direct":
        return {"item": width - 4, "price": 3, "items": 1}
    return None


def _name(choice: dict) -> str:
    words = [choice["positions"], choice["attention"], choice["activation"], choice["normalization"]]
    words += ["pre" if choice["norm_first"] else "post", *(["joint"] if choice["joint"] else [])]
    words += [f"{choice['columns']}_to_{choice['targets']}", f"last{choice['prediction_length']}"]
    return "-".join([*words, "masked" if choice["mask_padding"] else "unmasked"])
