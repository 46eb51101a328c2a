"""Models as torch files: parameters under sequifier's names, with the model's card beside them.

    {"model_state_dict": OrderedDict, "export_with_dropout": bool, "seqjax": the card as JSON}

Sequifier loads such a file as one of its own and passes over the last key. It attends to padding, though: of
a model with `mask_padding` it computes something else wherever a window is padded.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqjax.artifacts.atomic import replacing
from seqjax.artifacts.card import CARD_KEY, ModelCard, ModelKind
from seqjax.errors import ArtifactError
from seqjax.interop.names import EMBEDDING_PREFIX, to_sequifier
from seqjax.interop.torch_files import read_torch_file, write_torch_file

PARAMETERS = "model_state_dict"
WITH_DROPOUT = "export_with_dropout"


class TorchModel(NamedTuple):
    """The content of a file."""

    parameters: dict[str, Any]
    """Sequifier's names to arrays, not checked yet."""
    card: ModelCard | None
    """What the model says about itself; None in sequifier's own files."""
    kind: ModelKind
    """Whether the names are those of a generative or of an embedding model."""


def write_pt(path: Path, *, params: Mapping[str, Any], card: ModelCard, with_dropout: bool = False) -> None:
    """Writes one model as a torch file.

    Args:
      path: The file to create or replace.
      params: Parameters, a nested dict of arrays; written as float32.
      card: What the file says about itself, `of_kind` already.
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
