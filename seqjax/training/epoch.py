"""An epoch of a run: what its schedule says at each update, and what its updates found."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from seqjax.errors import TrainingError
from seqjax.training.events import BatchEvent, Progress, RunState
from seqjax.training.objective import Losses, loss_weights
from seqjax.training.setup import Run
from seqjax.training.step import NOT_FINITE, Constants, Values


class Epoch:
    """An epoch that is under way: reads what its updates found, and makes an event of each log interval.

    Args:
      run: The run.
      state: The run before the epoch, or in the middle of it.
      values: The run's numbers in which a population differs.
    """

    def __init__(self, run: Run, state: RunState, values: Values | None = None) -> None:
        self.number = number = state.epoch + 1
        self.order = run.order(number)
        n_batches = len(self.order)
        self.rates = scheduled(run, number, n_batches, lambda step: run.learning_rate(step, state.losses))
        momenta = None if run.momentum is None else scheduled(run, number, n_batches, run.momentum)
        self.constants = Constants(self.rates, run.key, values, momenta)
        nothing = (0.0,) * (2 * len(run.evaluator.targets) + 1)
        done = state.progress or Progress(0, 0.0, nothing, nothing)
        self.updates = done.updates  # Updates that were read.
        self.seconds = done.seconds  # How long they took.
        self._interval = np.asarray(done.interval)
        self._whole = np.asarray(done.epoch)
        self._interval_seconds = 0.0
        self._interval_updates = -(-run.log_interval // run.recipe.accumulation)
        self._run = run

    @property
    def progress(self) -> Progress:
        """The progress so far, for going on later."""
        return Progress(self.updates, self.seconds, (*self._interval.tolist(),), (*self._whole.tolist(),))

    def next_save(self, update: int) -> int:
        """The first update after `update` before which the run is to be saved, counted in the epoch."""
        interval, count = self._run.save_interval, len(self.rates)
        if interval is None:
            return count
        before = (self.number - 1) * count
        return ((before + update) // interval + 1) * interval - before

    @property
    def losses(self) -> Losses:
        """Mean over all updates that were read."""
        return self._mean(self._whole)

    def read(self, rows: Float[np.ndarray, "n columns"], seconds: float) -> Iterator[BatchEvent]:
        """Takes in what the next updates found.

        Args:
          rows: Their rows of the loss table.
          seconds: How long they took.

        Yields:
          The event of each log interval that ends with one of them.

        Raises:
          TrainingError: The loss or the gradient of one is not finite.
        """
        bad = np.flatnonzero(rows[:, -1] == NOT_FINITE)
        if len(bad):
            raise TrainingError(self._not_finite(self.updates + int(bad[0])))
        first = self._interval_updates - self.updates % self._interval_updates
        for row in np.split(rows, range(first, len(rows), self._interval_updates)):
            self.updates += len(row)
            self.seconds += seconds * len(row) / len(rows)
            self._interval_seconds += seconds * len(row) / len(rows)
            self._interval, self._whole = _added(self._interval, row), _added(self._whole, row)
            if self.updates % self._interval_updates == 0 or self.updates == len(self.rates):
                yield self._event()

    def _event(self) -> BatchEvent:
        size, interval, n_batches = self._run.recipe.accumulation, self._interval_updates, len(self.order)
        begin = (self.updates - 1) // interval * interval * size
        end = min(self.updates * size, n_batches)
        event = BatchEvent(
            epoch=self.number,
            batch=end,
            batches=n_batches,
            count=end - begin,
            losses=self._mean(self._interval),
            learning_rate=float(self.rates[self.updates - 1]),
            seconds=self._interval_seconds,
            samples=self.order.samples(begin, end),
            skipped=int(self._interval[-1]),
        )
        self._interval, self._interval_seconds = np.zeros_like(self._interval), 0.0
        return event

    def _mean(self, sums: Float[np.ndarray, "columns"]) -> Losses:
        targets = self._run.evaluator.targets
        pairs = sums[:-1].reshape(-1, 2).tolist()
        means = {
            target.name: total / weight if weight > 0 else 0.0
            for target, (total, weight) in zip(targets, pairs, strict=True)
        }
        return Losses(means, loss_weights(targets))

    def _not_finite(self, update: int) -> str:
        size = self._run.recipe.accumulation
        first, last = update * size + 1, min((update + 1) * size, len(self.order))
        batches = f"batch {first}" if first == last else f"batches {first} to {last}"
        step = (self.number - 1) * len(self.rates) + update + 1
        rows = self.order.batches(first - 1, last).ravel()
        about = self._run.describe
        where = "" if about is None else f" Its windows: {about(rows[rows >= 0])}."
        return (
            f"The loss or its gradient is not finite at step {step}: epoch {self.number}, {batches} of "
            f"{len(self.order)} (learning rate {self.rates[update]:g}).{where} Nothing was exported; earlier "
            "checkpoints are kept. Try a lower learning_rate, or look for extreme values in real columns."
        )


def scheduled(
    run: Run, epoch: int, n_batches: int, value: Callable[[int], float]
) -> Float[np.ndarray, "n_updates"]:
    """The values of a schedule at each update of an epoch.

    A schedule that steps with batches has, at an update, made the steps of all batches before the update's
    last.
    """
    size = run.recipe.accumulation
    ends = np.minimum(np.arange(size, n_batches + size, size), n_batches)
    if not run.step_on_batch:
        return np.full(len(ends), value(epoch - 1), np.float32)
    done = (epoch - 1) * n_batches
    return np.asarray([value(done + int(end) - 1) for end in ends], np.float32)


def _added(
    total: Float[np.ndarray, "columns"], rows: Float[np.ndarray, "n columns"]
) -> Float[np.ndarray, "columns"]:
    """The sum of a total and of rows, one after the other in float64."""
    return np.add.accumulate(np.concatenate([total[None], rows]), axis=0, dtype=np.float64)[-1]
