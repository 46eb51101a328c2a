"""From a model file to the engine that runs it, by who wrote it and in which format.

.onnx with a card    OnnxEngine             .pt with a card    JaxEngine
.onnx of sequifier   SequifierOnnxEngine    .pt of sequifier   JaxEngine
"""

from collections.abc import Callable
from pathlib import Path

from seqjax.artifacts.card import ModelCard, ModelKind
from seqjax.artifacts.model_files import card_of
from seqjax.artifacts.torch_models import read_pt
from seqjax.inference.engine import Engine, OnnxEngine
from seqjax.inference.jax_engine import JaxEngine
from seqjax.inference.sequifier import SequifierOnnxEngine
from seqjax.interop.onnx_session import open_session

Describe = Callable[[ModelKind], ModelCard]


def open_engine(path: Path, describe: Describe, *, device: str = "cpu") -> Engine:
    """The engine that runs a model file.

    Args:
      path: The model file.
      describe: Gives the card of a file that has none, by what the model is.
      device: auto, cpu, cuda or cuda:N.

    Raises:
      ArtifactError: The file is missing, damaged or no model.
      ConfigError: There is no such device.
    """
    if path.suffix == ".pt":
        model = read_pt(path)
        return JaxEngine(model.parameters, model.card or describe(model.kind), device=device)
    session = open_session(path, device=device)
    card = card_of(session, path)
    if card is not None:
        return OnnxEngine(session, card)
    # Sequifier's names of models never hold this word otherwise.
    kind: ModelKind = "embedding" if "-embedding-" in path.name else "generative"
    return SequifierOnnxEngine(session, describe(kind), path)
