"""`model_spec`: the architecture of a model, as the documents describe it."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from seqjax.config.base import ConfigModel, refuse
from seqjax.errors import Problem

Activation = Literal["swiglu", "gelu", "relu"]
Normalization = Literal["rmsnorm", "layer_norm"]
PositionalEncoding = Literal["learned", "rope"]
AttentionType = Literal["mha", "mqa", "gqa"]
LayerType = Literal["linear", "embedding", "norm", "decoder"]
"""Kinds of layers, as `layer_type_dtypes` names them; each module of a model says its own."""
DTypeName = Literal["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


class FixedModel(ConfigModel):
    """The part of an architecture that is the same in all runs of a search."""

    prediction_length: PositiveInt = 1
    """For how many trailing positions of a window predictions are returned (each predicts its next item)."""
    mask_padding: bool = True
    """Keep left padding out of attention. Models that sequifier trained attend to it: set false for those."""


class ModelSpec(FixedModel):
    """The size and the parts of the transformer."""

    initial_embedding_dim: PositiveInt
    """Width of the concatenated column embeddings; equals `dim_model` unless `joint_embedding_dim` is set."""
    dim_model: PositiveInt
    """Width of the transformer."""
    n_head: PositiveInt
    """Number of query heads; divides `dim_model`."""
    dim_feedforward: PositiveInt
    """Hidden width of the feed-forward layers."""
    num_layers: PositiveInt
    """Number of transformer layers."""
    feature_embedding_dims: dict[str, PositiveInt] | None = None
    """Embedding width of each input column; null shares `initial_embedding_dim` out: wide for columns of many
    classes, narrow for those of few and for numbers, alike where there is one kind of column."""
    joint_embedding_dim: PositiveInt | None = None
    """If set (to `dim_model`), a linear layer maps the concatenated embeddings to this width."""
    activation_fn: Activation = "swiglu"
    """Feed-forward activation."""
    normalization: Normalization = "rmsnorm"
    """Normalization layer."""
    positional_encoding: PositionalEncoding = "learned"
    """Learned absolute positions, or rotary positions inside attention."""
    attention_type: AttentionType = "mha"
    """Multi-head, multi-query (one key/value head) or grouped-query attention."""
    norm_first: bool = True
    """Normalize before attention and feed-forward (pre-norm) rather than after."""
    n_kv_heads: PositiveInt | None = None
    """Number of key/value heads; divides `n_head`. Null means `n_head`: standard multi-head attention."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim_model // self.n_head

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.n_kv_heads or self.n_head

    @property
    def mixers(self) -> tuple[str, ...]:
        """The mixer of each layer along time, by the names in `seqjax.model.transformer.MIXERS`."""
        return ("attention",) * self.num_layers

    @model_validator(mode="after")
    def _dimensions_agree(self) -> Self:
        refuse([*self._width_problems(), *self._head_problems()])
        return self

    def _width_problems(self) -> Iterator[Problem]:
        if self.joint_embedding_dim not in (None, self.dim_model):
            yield Problem(
                "joint_embedding_dim",
                f"must equal dim_model ({self.dim_model}) or be null (found {self.joint_embedding_dim}).",
            )
        total, dims = self.initial_embedding_dim, self.feature_embedding_dims
        if self.joint_embedding_dim is None and total != self.dim_model:
            yield Problem(
                "initial_embedding_dim",
                f"must equal dim_model ({self.dim_model}) when joint_embedding_dim is null (found {total}); "
                f"set joint_embedding_dim: {self.dim_model} to project it.",
            )
        if dims is not None and sum(dims.values()) != total:
            summands = " + ".join(map(str, dims.values()))
            message = f"must sum to initial_embedding_dim ({total}); {summands} is {sum(dims.values())}."
            yield Problem("feature_embedding_dims", message)

    def _head_problems(self) -> Iterator[Problem]:
        heads, kv_heads, attention = self.n_head, self.kv_heads, f"attention_type: {self.attention_type}"
        if self.dim_model % heads:
            yield Problem("n_head", f"must divide dim_model ({self.dim_model}) (found {heads}).")
        elif self.positional_encoding == "rope" and self.head_dim % 2:
            yield Problem(
                "positional_encoding",
                "rope rotates pairs, so dim_model / n_head must be even "
                f"({self.dim_model} / {heads} is {self.head_dim}).",
            )
        if self.n_kv_heads is None:
            return
        if heads % kv_heads:
            yield Problem("n_kv_heads", f"must divide n_head ({heads}) (found {kv_heads}).")
        elif self.attention_type == "mha" and kv_heads != heads:
            yield Problem(
                "n_kv_heads",
                f"must be null or n_head ({heads}) with {attention} (found {kv_heads}); "
                f"use attention_type: {'mqa' if kv_heads == 1 else 'gqa'} for fewer key/value heads.",
            )
        elif self.attention_type == "mqa" and kv_heads != 1:
            message = f"must be 1 with {attention} (found {kv_heads}); use attention_type: gqa for more."
            yield Problem("n_kv_heads", message)
