"""Successive halving: all runs are trained for a little, the better ones for longer, the best to the end.

Training goes by rounds. In a round every run that is left is trained until the round's epoch; then the best
of so many are kept, and their training is continued, not repeated.
"""

import math
from collections.abc import Mapping


def budgets(first: int, factor: int, last: int) -> list[int]:
    """The epoch at which each round ends.

    Args:
      first: That of the first round.
      factor: By which each is longer than the one before.
      last: The largest number of epochs of a run, where the last round ends.
    """
    ends = []
    epoch = first
    while epoch < last:
        ends.append(epoch)
        epoch *= factor
    return [*ends, last]


def kept(losses: Mapping[int, float], factor: int) -> list[int]:
    """The runs that are trained on: of `factor` runs one, and one at least.

    Args:
      losses: The lowest validation loss of each run that is left.
      factor: See above.

    Returns:
      Their numbers, in order.
    """
    best_first = sorted(losses, key=lambda run: (losses[run], run))
    return sorted(best_first[: math.ceil(len(best_first) / factor)])
