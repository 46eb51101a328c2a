"""The columns of a model, resolved: which, in which order, of which kind and size.

`ModelSpec` says how large a model is; `Schema` says what goes in and what comes out. Together they determine
every parameter's shape. The order is the metadata's: all categorical inputs, then all real ones.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from seqjax.config.base import ConfigModel, suggestion
from seqjax.config.names import checked_name

_STORED_TYPES = (
    *(f"{sign}Int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "U")),
    *(f"Float{bits}" for bits in (32, 64)),
)


def _stored_type(name: str) -> str:
    if name.casefold() not in map(str.casefold, _STORED_TYPES):
        raise ValueError(f"no stored column has the type {name!r}. {suggestion(name, _STORED_TYPES)}")
    return name


FileName = Annotated[str, AfterValidator(checked_name)]
"""A name that users give to files."""
ColumnType = Annotated[str, AfterValidator(_stored_type)]
"""Polars' name of a stored column's type: whole numbers are ids of categories, floats real values."""
ColumnKind = Literal["categorical", "real"]
ColumnRole = Literal[ColumnKind, "text"]
"""The kind of a column, or categories that are taken as they are written."""
DecimalMark = Literal[".", ","]
"""Of csv: what stands before the decimals of a number."""
TableFormat = Literal["csv", "parquet"]
"""Of tables: raw ones, and results."""
WindowFormat = Literal[TableFormat, "pt", "arrow"]
"""Of preprocessed data: windows in a table, torch shards, or Arrow shards."""
HeadName = Literal["categorical", "point", "gaussian"]
"""The head of a target: see `seqjax.model.distributions`."""
MissingReal = Literal["error", "mean", "mask"]
"""Meaning of a missing value in a real column: an error, or none, in whose place the model sees the mean; and
with mask it sees that there is none."""
Stride = Annotated[int, Field(gt=0, lt=2**31)]
"""Step between windows, in items."""
SeqLength = Annotated[int, Field(gt=0, le=1_000_000)]
"""L of a data set; much longer windows would not fit into memory."""


class HeadShape(NamedTuple):
    """The kind of column and the number of outputs that give a head's parameters their shape."""

    kind: ColumnKind
    """The kind of column that it predicts."""
    width: int | None
    """Its number of outputs; null is one a class."""


HEADS: Mapping[HeadName, HeadShape] = {
    "categorical": HeadShape("categorical", None),
    "point": HeadShape("real", 1),
    "gaussian": HeadShape("real", 2),
}
"""By name; the first one of a kind is the usual one."""


def usual_head(kind: ColumnKind) -> HeadName:
    """The head of a target of a kind, unless its criterion asks for another."""
    return next(name for name, shape in HEADS.items() if shape.kind == kind)


def kind_of_role(role: ColumnRole) -> ColumnKind:
    """The kind of a column of a role."""
    return "categorical" if role == "text" else role


def kind_of(column_type: str) -> ColumnKind:
    """The kind of a column whose type is called so: integers of any width are ids, all else is real."""
    return "categorical" if "int" in column_type.lower() else "real"


class Schema(ConfigModel):
    """The inputs and targets of a model.

    Attributes keep their order, which is that of the concatenated embeddings, of a graph's inputs and of the
    heads.
    """

    n_classes: dict[str, int]
    """Number of classes of every categorical column that is an input or a target, ids 0 and 1 included."""
    categorical_inputs: tuple[str, ...]
    """Categorical input columns, in metadata order."""
    real_inputs: tuple[str, ...]
    """Real input columns, in metadata order."""
    targets: dict[str, ColumnKind]
    """Target columns and their kind, in the order of `target_columns`."""
    seq_length: int
    """Number of items in a window, the item to predict not counted."""
    heads: dict[str, HeadName] = Field(default_factory=dict)
    """Heads of targets, where they are not usual for their kind."""
    masked_inputs: tuple[str, ...] = ()
    """Real inputs of which the model is told where a value is missing."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Input columns in graph order: categorical first, then real."""
        return self.categorical_inputs + self.real_inputs

    @property
    def columns(self) -> dict[str, ColumnKind]:
        """Every column that a batch must hold, inputs first, then targets that are no inputs."""
        inputs: dict[str, ColumnKind] = dict.fromkeys(self.categorical_inputs, "categorical")
        inputs |= dict.fromkeys(self.real_inputs, "real")
        return {**inputs, **{name: kind for name, kind in self.targets.items() if name not in inputs}}

    def head(self, target: str) -> HeadName:
        """The head of a target."""
        return self.heads.get(target, usual_head(self.targets[target]))

    @property
    def target_heads(self) -> dict[str, HeadName]:
        """The head of each target, in order."""
        return {name: self.head(name) for name in self.targets}

    def head_width(self, target: str) -> int:
        """Number of outputs of a target's head."""
        return HEADS[self.head(target)].width or self.n_classes[target]

    def parameter_name(self, path: Sequence[str]) -> str:
        """The name of a parameter: its path, in which a column's name takes the place of its number.

        Args:
          path: The keys that lead to it in the tree of parameters, such as encoder, 0, weight.
        """
        columns = {"encoder": self.inputs, "pos_encoder": self.inputs, "decoder": tuple(self.targets)}
        first, *rest = path
        if first in columns:
            rest[0] = columns[first][int(rest[0])]
        return ".".join([first, *rest])

    def embedding_dims(self, total: int, given: Mapping[str, int] | None) -> dict[str, int]:
        """Embedding width of each input column, in graph order.

        Args:
          total: `initial_embedding_dim`.
          given: `feature_embedding_dims`, already checked against the columns; None shares `total` out.

        Columns that are all real, or all categorical in a number that divides `total`, have equal shares, the
        surplus going to the first ones: sequifier's rule. All others have shares that grow with the fourth
        root of the number of classes (the rule of thumb of embeddings), and at least 1; a number counts as a
        single class.
        """
        inputs = self.inputs
        if given is not None:
            return {name: given[name] for name in inputs}
        share, surplus = divmod(total, len(inputs))
        if not self.categorical_inputs or not (self.real_inputs or surplus):
            return {name: share + (index < surplus) for index, name in enumerate(inputs)}
        sizes = {name: self.n_classes.get(name, 1) ** 0.25 for name in inputs}
        sizes |= dict.fromkeys(self.real_inputs, 1.0)
        left = (total - len(inputs)) / sum(sizes.values())
        dims = {name: 1 + int(left * size) for name, size in sizes.items()}
        rests = sorted(inputs, key=lambda name: int(left * sizes[name]) - left * sizes[name])
        for name in rests[: total - sum(dims.values())]:
            dims[name] += 1
        return dims
