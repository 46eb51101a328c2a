"""Autoregression: the last window of each sequence is continued by feeding predictions back.

Each sequence is a row of one fixed array per column. The row begins with the window's L inputs; behind them
go the prediction that the window itself gave, and then one value a step. Step k reads the L values that begin
at slot k: the window slides, nothing is copied.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64, Shaped

from seqjax.data.dataset import Windows
from seqjax.inference.engine import Engine
from seqjax.inference.predict import Feed, Read, chunks
from seqjax.inference.sample import Readout, joined
from seqjax.progress import progress


def last_windows(windows: Windows) -> Int64[np.ndarray, "S"]:
    """The number of each sequence's last window, in ascending order."""
    order = np.lexsort((windows.subsequence_id, windows.sequence_id))
    ends = np.append(np.diff(windows.sequence_id[order]) != 0, True)
    return np.sort(order[ends])


def generate(
    engine: Engine,
    start: Feed,
    first: Mapping[str, Shaped[np.ndarray, "S"]],
    read: Read,
    *,
    steps: int,
    batch_size: int,
) -> Readout:
    """Continues S windows by `steps` predictions.

    Args:
      engine: A model that predicts each of its input columns at the last position.
      start: The inputs of the windows (S, L), and which of their positions hold a real item.
      first: What the windows themselves predict, by target: ids or standardised values.
      read: What to keep of a batch of outputs; its values are fed back.
      steps: How many further predictions to make, at least 1.
      batch_size: Windows a batch.

    Returns:
      The readouts of each step, the steps along the second axis: (S, steps).
    """
    inputs, valid_mask = start
    rows, length = valid_mask.shape
    valid = np.concatenate([valid_mask, np.ones((rows, steps), np.bool_)], axis=1)
    columns = {name: _extended(values, first[name], steps) for name, values in inputs.items()}
    taken = []
    with progress("Autoregression", steps, "steps") as bar:
        for step in range(1, steps + 1):
            window = slice(step, step + length)
            parts = [
                read(
                    engine.predict(
                        {name: column[chunk, window] for name, column in columns.items()},
                        valid[chunk, window],
                    )
                )
                for chunk in chunks(rows, batch_size)
            ]
            taken.append(joined(parts))
            if step < steps:
                for name, column in columns.items():
                    column[:, step + length] = taken[-1].values[name][:, 0]
            bar.advance()
    return _side_by_side(taken)


def _extended(
    values: Shaped[np.ndarray, "S L"], first: Shaped[np.ndarray, "S"], steps: int
) -> Shaped[np.ndarray, "S _"]:
    column = np.zeros((len(values), values.shape[1] + steps), values.dtype)
    column[:, : values.shape[1]] = values
    column[:, values.shape[1]] = first
    return column


def _side_by_side(taken: list[Readout]) -> Readout:
    values, log_probs = (
        {name: np.concatenate([part[field][name] for part in taken], axis=1) for name in taken[0][field]}
        for field in range(2)
    )
    return Readout(values, log_probs)
