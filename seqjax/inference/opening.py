"""From a model file to the engine that runs it, by who wrote it and in which format.

.onnx with a card    OnnxEngine             .pt with a card    JaxEngine
.onnx of sequifier   SequifierOnnxEngine    .pt of sequifier   the same

Models that sequifier exported do not describe themselves. What a card holds comes from the configuration that
the model was trained with, and from the metadata of its data. Sequifier attends to padding, so `mask_padding`
is false. Its ONNX graphs name neither inputs nor outputs, so they are bound by order; all inputs but the
first have a batch of fixed size; outputs come position-major.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from seqjax.artifacts.card import ModelCard, describe_run
from seqjax.artifacts.layout import ModelKind
from seqjax.artifacts.model_files import card_of, graph_feed, read_pt
from seqjax.config.base import validate
from seqjax.config.evaluate import EvaluateConfig
from seqjax.config.infer import InferConfig
from seqjax.config.load import read_yaml, resolve_path
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.train import SequifierConfig
from seqjax.errors import ArtifactError, ConfigError, Problem
from seqjax.inference.engine import Columns, Engine, OnnxEngine, Outputs, without_dropout
from seqjax.interop.onnx_session import open_session

if TYPE_CHECKING:
    import onnxruntime


def card_from_training(config: InferConfig | EvaluateConfig, model: Path, kind: ModelKind) -> ModelCard:
    """The card of a model that sequifier trained.

    Args:
      config: The configuration of inference; its `training_config_path` is read, and the metadata that is
        named there, or else in `config`.
      model: The model's file, for messages.
      kind: What the model is.

    Raises:
      ConfigError: There is no such configuration, or it is not valid.
      DataError: The metadata is missing or damaged.
    """
    path = resolve_path(config.project_root, config.training_config_path, or_here=True)
    if not path.is_file():
        message = (
            f"{path} does not exist, and {model.name}, as a model of sequifier, does not describe itself. "
            "Name the configuration that it was trained with."
        )
        raise ConfigError("The configuration of inference", [Problem("training_config_path", message)])
    # Not as a command reads it: its project may have been on another machine.
    training = validate(SequifierConfig, read_yaml(path), str(path))
    spec = training.model_spec.model_copy(update={"mask_padding": False})
    training = training.model_copy(update={"model_spec": spec})
    place = resolve_path(config.project_root, training.metadata_config_path, or_here=True)
    if not place.is_file() and config.metadata_config_path is not None:
        place = resolve_path(config.project_root, config.metadata_config_path, or_here=True)
    metadata = load_metadata(place)
    card = describe_run(training, resolve_schema(training, metadata), metadata).of_kind(kind)
    return card.model_copy(update={"versions": {}})


class SequifierOnnxEngine:
    """A graph that sequifier exported, in onnxruntime."""

    def __init__(self, session: "onnxruntime.InferenceSession", card: ModelCard, path: Path) -> None:
        """Compares the graph's ends with the card.

        Args:
          session: The open file.
          card: What the model is.
          path: The file, for messages.

        Raises:
          ArtifactError: The graph has other inputs or outputs than the card.
        """
        self.card = card
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        outputs = session.get_outputs()
        if len(self._inputs) != len(card.inputs) or len(outputs) != len(card.outputs):
            raise ArtifactError(
                f"{path}: the graph has {len(self._inputs)} inputs and {len(outputs)} outputs, but the "
                f"training configuration says {len(card.inputs)} and {len(card.outputs)}. Name the "
                "configuration that the model was trained with (training_config_path)."
            )
        sizes = (value.shape[0] for value in session.get_inputs())
        self._batch = next((size for size in sizes if isinstance(size, int)), None)

    def predict(self, inputs: Columns, valid_mask: Bool[np.ndarray, "B L"]) -> Outputs:
        """The outputs; see `Engine.predict`."""
        count = len(valid_mask)
        size = self._batch or count
        arrays = [
            np.pad(values, ((0, -count % size), (0, 0)))
            for values in graph_feed(self.card, inputs, valid_mask).values()
        ]
        parts = []
        for first in range(0, count, size):
            feed = (values[first : first + size] for values in arrays)
            parts.append(self._session.run(None, dict(zip(self._inputs, feed, strict=True))))
        joined = (
            np.concatenate(values, axis=1).swapaxes(0, 1)[:count] for values in zip(*parts, strict=True)
        )
        return dict(zip(self.card.outputs, joined, strict=True))


def open_engine(
    path: Path,
    describe: Callable[[ModelKind], ModelCard],
    *,
    device: str = "cpu",
    dropout_seed: int | None = None,
    distributed: bool = False,
) -> Engine:
    """The engine that runs a model file.

    Args:
      path: The model file.
      describe: Gives the card of a file that has none, by what the model is.
      device: auto, cpu, cuda or cuda:N.
      dropout_seed: Makes the model drop as training did, anew at every call, and engines of the same seed
        alike; None drops nothing.
      distributed: Whether to share each batch among all local devices of that kind; onnxruntime, which has
        all cores of the processor anyway, does not.

    Raises:
      ArtifactError: The file is missing, damaged or no model, or cannot drop.
      ConfigError: There is no such device.
    """
    if path.suffix == ".pt":
        model = read_pt(path)
        if find_spec("jax") is None:
            raise ArtifactError(
                f"{path.name} is run by jax, which is not installed. Install it (pip install seqjax), or "
                "export the model as .onnx."
            )
        from seqjax.inference.jax_engine import JaxEngine

        return JaxEngine(
            model.parameters,
            model.card or describe(model.kind),
            device=device,
            distributed=distributed,
            dropout_seed=dropout_seed,
        )
    session = open_session(path, device=device, dropout_seed=dropout_seed)
    card = card_of(session, path)
    if card is not None:
        return OnnxEngine(session, card, live_dropout=dropout_seed is not None)
    if dropout_seed is not None and b"Dropout" not in path.read_bytes():
        raise without_dropout(path.name)
    # Sequifier's names of models never hold this word otherwise.
    kind: ModelKind = "embedding" if "-embedding-" in path.name else "generative"
    return SequifierOnnxEngine(session, describe(kind), path)
