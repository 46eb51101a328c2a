"""Batches by hand."""

from seqjax.windows.windows import Batch


def batch_of(columns, padding) -> Batch:
    """A batch in which every item is a target."""
    return Batch(columns, padding, padding)
