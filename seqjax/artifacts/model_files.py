"""Model files: written by training, resolved and read by inference.

An ONNX file gets its name only after onnxruntime computed with it what JAX computes.

A torch file holds the parameters under sequifier's names, and the model's card:

    {"model_state_dict": OrderedDict, "export_with_dropout": bool, "seqjax": the card as JSON}

Sequifier loads such a file as one of its own and passes over the last key. It attends to padding, though: of
a model with `mask_padding` it computes something else wherever a window is padded.
"""

import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import numpy as np

from seqjax.artifacts.atomic import move_over, replacing, sync
from seqjax.artifacts.best_model import chosen_model
from seqjax.artifacts.card import CARD_KEY, ModelCard
from seqjax.artifacts.layout import Layout, ModelKind, Which, model_files
from seqjax.config.base import suggestion
from seqjax.config.load import resolve_path
from seqjax.config.train import TrainConfig
from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, to_sequifier
from seqjax.interop.onnx_export import GraphInput, LiveDropout, drop_live, export_onnx, external_data
from seqjax.interop.onnx_session import open_session
from seqjax.interop.torch_files import read_torch_file, write_torch_file
from seqjax.model.distributions import distribution_of
from seqjax.windows.windows import Batch, inputs_of, valid_mask

if TYPE_CHECKING:
    import jax
    import onnxruntime
    from flax import nnx

    from seqjax.model.dropout import Drop

logger = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4
"""Distance from JAX that an exported model may have: absolute up to 1, relative above."""
SUFFIXES = (".onnx", ".pt")
MODELS = "models"
PARAMETERS = "model_state_dict"
WITH_DROPOUT = "export_with_dropout"

Params = Mapping[str, Any]
Forward = Callable[..., tuple["jax.Array", ...]]


def export_models(
    layout: Layout,
    *,
    params: Params,
    graphdef: "nnx.GraphDef[Any]",
    card: ModelCard,
    config: TrainConfig,
    which: Which,
    epoch: int,
    sample: Batch,
) -> list[Path]:
    """Writes the model files that a training configuration asks for.

    Each ONNX file is run in onnxruntime on `sample` and on a single window of it, and compared with JAX,
    before it gets its name.

    Args:
      layout: Where the run's files lie.
      params: Parameters, a nested dict of arrays; exported as float32.
      graphdef: What `params` belong to.
      card: The description of the model.
      config: The run's configuration.
      which: Which parameters these are.
      epoch: The epoch in the files' names.
      sample: Real windows.

    Returns:
      The files.

    Raises:
      ArtifactError: A file does not compute what JAX computes; it is removed.
    """
    paths = []
    for kind, path in exported_files(layout, config, which, epoch):
        live = config.export_with_dropout
        if path.suffix == ".pt":
            write_pt(path, params=params, card=card.of_kind(kind), with_dropout=live)
            logger.info("exported %s", path)
        else:
            described = card.of_kind(kind, live_dropout=live)
            write_onnx(path, params=params, graphdef=graphdef, card=described, sample=sample)
        paths.append(path)
    return paths


def exported_files(
    layout: Layout, config: TrainConfig, which: Which, epoch: int
) -> list[tuple[ModelKind, Path]]:
    """The model files that a training configuration asks for, and the kind of each."""
    kinds: dict[ModelKind, bool] = {
        "generative": config.export_generative_model,
        "embedding": config.export_embedding_model,
    }
    extensions = {"onnx": config.export_onnx, "pt": config.export_pt}
    return [
        (kind, layout.model(which, epoch, kind=kind, extension=extension))
        for extension, chosen in extensions.items()
        for kind, wanted in kinds.items()
        if chosen and wanted
    ]


def write_onnx(
    path: Path, *, params: Params, graphdef: "nnx.GraphDef[Any]", card: ModelCard, sample: Batch
) -> float:
    """Writes one model as ONNX, and returns its largest difference from JAX.

    Args:
      path: The file to create or replace.
      params: Parameters; exported as float32.
      graphdef: What `params` belong to.
      card: The description of the model, `of_kind` already.
      sample: Real windows to compare on.

    Raises:
      ArtifactError: The file does not compute what JAX computes; there is no file then.
    """
    import jax
    import jax.numpy as jnp

    def as_float32(leaf: "np.ndarray | jax.Array") -> "jax.Array":
        return jnp.asarray(leaf, jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

    constants = jax.tree.map(as_float32, params)
    dropout = LiveDropout(card.dropout_input, card.dropout) if card.dropout_input else None
    to_export = forward_function(graphdef, card, drop=drop_live if dropout else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        staged = Path(folder) / path.name
        export_onnx(
            staged,
            functools.partial(to_export, constants),
            inputs=_graph_inputs(card),
            outputs=list(card.output_names),
            seq_length=card.column_schema.seq_length,
            description={CARD_KEY: card.to_json()},
            dropout=dropout,
        )
        apply = jax.jit(forward_function(graphdef, card))
        masked = card.column_schema.masked_inputs
        feed = graph_feed(card, inputs_of(sample, card.inputs, masked), valid_mask(sample))
        difference = _difference_from_jax(staged, card, apply, constants, feed)
        if not difference <= LARGEST_DIFFERENCE:
            raise ArtifactError(
                f"{path}: the exported model differs from JAX by {difference:.1e}, more than "
                f"{LARGEST_DIFFERENCE:.0e}, so it is not kept. Are the parameters finite? If so, please "
                "report this with the configuration."
            )
        _publish(staged, path)
    logger.info("exported %s, largest difference from JAX %.1e", path, difference)
    return difference


class TorchModel(NamedTuple):
    """The content of a torch file: arrays by sequifier's names, not checked yet, and the kind that those say.

    Sequifier's own files have no card.
    """

    parameters: dict[str, Any]
    card: ModelCard | None
    kind: ModelKind


def write_pt(path: Path, *, params: Mapping[str, Any], card: ModelCard, with_dropout: bool = False) -> None:
    """Writes one model as a torch file.

    Args:
      path: The file to create or replace.
      params: Parameters, a nested dict of arrays; written as float32.
      card: The description of the model, `of_kind` already.
      with_dropout: Whether the file shall say that it is for inference with dropout, which sequifier heeds.
    """
    names = to_sequifier(params, card.column_schema, card.model_spec, embedding=card.kind == "embedding")
    # Training may keep them in narrower formats, which sequifier's inference does not take.
    arrays = OrderedDict((name, np.asarray(values, np.float32)) for name, values in names.items())
    content = {PARAMETERS: arrays, WITH_DROPOUT: with_dropout, CARD_KEY: card.to_json()}
    with replacing(path) as temporary:
        write_torch_file(temporary, content)


def read_pt(path: Path) -> TorchModel:
    """Reads one model, ours or sequifier's.

    Raises:
      ArtifactError: The file is missing or damaged, or holds no model.
    """
    content = read_torch_file(path)
    parameters = content.get(PARAMETERS) if isinstance(content, dict) else None
    text = content.get(CARD_KEY) if isinstance(content, dict) else None
    if not isinstance(parameters, dict) or not parameters or not (text is None or isinstance(text, str)):
        raise ArtifactError(
            f"{path} holds no model: it must be a mapping with the parameters under {PARAMETERS!r}. Name a "
            "file that training exported into models/."
        )
    prefixed = all(str(name).startswith(EMBEDDING_PREFIX) for name in parameters)
    card = None if text is None else ModelCard.from_json(text, str(path))
    return TorchModel(parameters, card, "embedding" if prefixed else "generative")


def _publish(staged: Path, path: Path) -> None:
    """Moves a model file and its external data, if it has any, to their places."""
    sync(staged.parent)
    if external_data(staged).exists():
        # A file that names another's data would be worse than none.
        path.unlink(missing_ok=True)
        move_over(external_data(staged), external_data(path))
        move_over(staged, path)
    else:
        move_over(staged, path)
        external_data(path).unlink(missing_ok=True)


def dropout_feed(card: ModelCard, *, live: bool) -> dict[str, np.ndarray]:
    """The feed of a graph's dropout input: to drop as training did, or not at all."""
    if card.dropout_input is None:
        return {}
    return {card.dropout_input: np.array(card.dropout if live else 0, np.float32)}


def graph_feed(
    card: ModelCard, inputs: Mapping[str, np.ndarray], valid_mask: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays that a graph is run on, by its own names and in its own types.

    Args:
      card: The description of the model.
      inputs: Each input column, ids or standardised values (B, L).
      valid_mask: Which positions hold a real item, bool (B, L).
    """
    arrays = {**inputs, card.valid_mask: valid_mask} if card.valid_mask else inputs
    return {item.name: np.asarray(arrays[item.name], item.dtype) for item in _graph_inputs(card)}


def card_of(session: "onnxruntime.InferenceSession", path: Path) -> ModelCard | None:
    """The card in an open ONNX model, if seqjax wrote it; `path` is for messages."""
    text = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    return None if text is None else ModelCard.from_json(text, str(path))


def resolve_model_path(
    root: str | Path,
    text: str,
    *,
    kind: ModelKind = "generative",
    model_name: str | None = None,
    metadata: str | None = None,
    key: str = "model_path",
) -> Path:
    """The model file that a configuration names.

    Args:
      root: `project_root`.
      text: A path, or the name of a file in models/; its suffix may be left out. `best` is the one of the
        lowest validation loss there, `last` that of the newest run; see `chosen_model`.
      kind: What the model does, where `text` is `best` or `last`.
      model_name: The run that it is of, there; None is any.
      metadata: The metadata of the data that it is to run on, if it is known.
      key: Where the configuration names it.

    Raises:
      ArtifactError: There is no such file; the message names those that exist.
    """
    folder = resolve_path(root, MODELS)
    if text in get_args(Which):
        which = cast(Which, text)
        chosen = chosen_model(root, which, kind, model_name=model_name, metadata=metadata)
        if chosen is not None:
            return chosen
        if model_name is not None and model_files(folder, which, kind):
            raise ArtifactError(
                f"{folder} holds no {kind} model that is the {text} one of the run "
                f"{model_name!r} (model_name)."
            )
    # The last one repeats project_root, as seen from the working directory.
    bases = [resolve_path(root, text), resolve_path(root, Path(MODELS) / text), Path(text)]
    for base in bases:
        for candidate in (base, *(base.with_name(base.name + suffix) for suffix in SUFFIXES)):
            if candidate.is_file():
                return candidate
    known = sorted(f"{MODELS}/{path.name}" for path in folder.glob("*") if path.suffix in SUFFIXES)
    hint = suggestion(text, known) if known else f"There is no model in {folder}: run seqjax train first."
    raise ArtifactError(f"{bases[0]}: there is no such model file ({key}: {text}). {hint}")


def _graph_inputs(card: ModelCard) -> list[GraphInput]:
    schema = card.column_schema
    inputs = [GraphInput(name, "int64") for name in schema.categorical_inputs]
    inputs += [GraphInput(name, "float32") for name in schema.real_inputs]
    return [*inputs, GraphInput(card.valid_mask, "bool")] if card.valid_mask else inputs


def forward_function(
    graphdef: "nnx.GraphDef[Any]", card: ModelCard, *, drop: "Drop | None" = None
) -> Forward:
    """The model as a function of its parameters and the graph's inputs, in order.

    Args:
      graphdef: The model's structure.
      card: What is computed of it.
      drop: What drops, at every place where training does; None drops nothing.
    """
    from seqjax.model.functional import merge

    def apply(params: Params, *arrays: "jax.Array") -> tuple["jax.Array", ...]:
        model = merge(graphdef, dict(params))
        inputs = dict(zip(card.inputs, arrays, strict=False))
        valid = arrays[-1] if card.valid_mask else None
        if card.kind == "embedding":
            return (model.embed(inputs, valid, layers=card.embedding_layers, dropout=drop),)
        stated = model.predict(inputs, valid, dropout=drop)
        rows = {target: distribution_of(card.column_schema, target) for target in card.outputs}
        values = [row.exported(stated[target]) for target, row in rows.items()]
        return (*values, *(stated[target] for target in card.parameters))

    return apply


def _difference_from_jax(
    path: Path, card: ModelCard, apply: Forward, params: Params, feed: Mapping[str, np.ndarray]
) -> float:
    """The largest over all of the sample's windows, and over another batch size, without dropout."""
    import jax

    narrow = [values.astype(np.int32) if values.dtype == np.int64 else values for values in feed.values()]
    with jax.default_matmul_precision("highest"):
        expected = jax.device_get(apply(params, *narrow))
    session = open_session(path)
    still = dropout_feed(card, live=False)
    rows = np.arange(len(expected[0]))
    another = [0] if len(rows) > 1 else [0, 0, 0]
    return max(
        (
            _difference(np.asarray(output), values[batch])
            for batch in (rows, another)
            for output, values in zip(
                session.run(None, {name: values[batch] for name, values in feed.items()} | still),
                expected,
                strict=True,
            )
        ),
        key=lambda difference: math.inf if math.isnan(difference) else difference,
    )


def _difference(output: np.ndarray, expected: np.ndarray) -> float:
    if output.shape != expected.shape:
        return math.inf
    return float(np.max(np.abs(output - expected) / np.maximum(1, np.abs(expected)), initial=0))
