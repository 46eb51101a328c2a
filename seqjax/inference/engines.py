"""From a model file to the engine that runs it, by who wrote it and in which format.

.onnx with a card    OnnxEngine             .pt with a card    JaxEngine, or DroppingEngine
.onnx of sequifier   SequifierOnnxEngine    .pt of sequifier   the same
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from seqjax.artifacts.card import ModelCard, ModelKind
from seqjax.artifacts.model_files import card_of
from seqjax.artifacts.torch_models import read_pt
from seqjax.errors import ArtifactError
from seqjax.inference.engine import Engine, OnnxEngine, without_dropout
from seqjax.inference.jax_engine import DroppingEngine, JaxEngine
from seqjax.inference.sequifier import SequifierOnnxEngine
from seqjax.interop.onnx_session import open_session

Describe = Callable[[ModelKind], ModelCard]


def open_engine(
    path: Path,
    describe: Describe,
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
        alike; null drops nothing.
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
        described = model.card or describe(model.kind)
        if dropout_seed is None:
            return JaxEngine(model.parameters, described, device=device, distributed=distributed)
        return DroppingEngine(
            model.parameters, described, seed=dropout_seed, device=device, distributed=distributed
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
