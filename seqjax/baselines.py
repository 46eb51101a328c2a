"""Baselines that a model has to beat: predictors that are counted rather than trained.

| | categorical target | real target |
|---|---|---|
| last value | the last class with the rate at which one repeats, else the marginal | the last value |
| marginal | the share of each class | the mean |
| first-order Markov | the share of each class after the last one | a straight line through the last value |
| second-order Markov | the share of each class after the last two | |
| velocity | | the straight line through the last two values |
| seasonal last value | | the value one period before |
| drift | | the straight line through the first and the last value of the window |

They see as much of a window as the model, but nothing besides the target itself. The last value is the last
that there is, where some are missing. Where a baseline lacks the values that it needs, it predicts as a
simpler one does: the last value or the first-order Markov, and the marginal where nothing precedes.

They are fitted with numpy alone, on each training item once, and predict on arrays of numpy and of jax alike:
the array says which.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from seqjax.config.schema import Schema
from seqjax.model.distributions import DISTRIBUTIONS, Distribution
from seqjax.windows.index import Slices
from seqjax.windows.windows import Batch, Windows, filled, present, taken, targets_once, valid_mask

logger = logging.getLogger(__name__)

Parameters = Mapping[str, Num[Any, "..."]]
"""A fitted baseline of one target: arrays by name."""
Fitted = dict[str, Parameters]
"""The baselines of one target, by name."""
Periods = Mapping[str, int] | int | None
"""The period of each target, or of all; None looks for it in the training data."""

SEASONAL = "seasonal last value"

_MAX_ITEMS = 1_000_000
_ITEMS_OF_A_PIECE = 1 << 14
_MAX_CLASSES = 4096
_MAX_CELLS = _MAX_CLASSES**2
"""Numbers in a table of transitions."""
_MAX_LOOKED_AT = 1 << 24
"""Items times periods that are compared to find a period, and rows of windows that are compared."""
_NEIGHBOURS = 64
"""Overlapping windows that are looked at together, where not all are."""
_NEARLY_AS_GOOD = 1.01
"""A shorter period is taken where its squared error is at most so many times the lowest."""


class Past:
    """The values of one target before each of the newest T of S items, B times; item t + 1 follows slot t.

    Args:
      values: Values of slots 0 to S - 1; 0 where there is none.
      known: True where there is a value.
      begin: The first slot that is seen before each item; None is 0 for all.
      newest: T; None is S.
    """

    def __init__(
        self,
        values: Num[Any, "B S"],
        known: Bool[Any, "B S"],
        begin: Int[Any, "B S"] | None = None,
        *,
        newest: int | None = None,
    ) -> None:
        self._xp = xp = known.__array_namespace__()
        slots = xp.arange(known.shape[1], dtype=np.int32)
        shown = slice(-(newest or len(slots)), None)
        self._values, self._known, self._slots, self._slot = values, known, slots, slots[shown]
        starts = xp.zeros_like(known, dtype=np.int32) if begin is None else begin
        last = xp.maximum.accumulate(xp.where(known, slots, -1), axis=1)
        # At the slot of each value, the one before it.
        before = xp.concatenate([xp.full_like(last[:, :1], -1), last[:, :-1]], axis=1)
        self._begin, self._last = starts[:, shown], last[:, shown]
        self._second = xp.where(self._last >= 0, self._at(before, self._last), -1)
        self.last: Num[Any, "B T"] = self._at(values, self._last)
        """The last value before each item, where there is one."""
        self.second: Num[Any, "B T"] = self._at(values, self._second)
        """The value before the last, where there is one."""
        self.has_last: Bool[Any, "B T"] = self._last >= self._begin
        self.has_second: Bool[Any, "B T"] = self._second >= self._begin

    def on_line(self) -> Float[Any, "B T"]:
        """The straight line through the last two values, at each item."""
        return self._line(self._second)

    def on_drift(self) -> Float[Any, "B T"]:
        """The straight line through the first and the last value, at each item."""
        xp, count = self._xp, len(self._slots)
        places = xp.where(self._known, self._slots, count)[:, ::-1]
        # At each slot, that of the next value.
        following = xp.minimum.accumulate(places, axis=1)[:, ::-1]
        return self._line(self._at(following, self._begin))

    def ago(self, period: Int[Any, ""] | int) -> tuple[Num[Any, "B T"], Bool[Any, "B T"]]:
        """The values so many items before each item, and where there is one."""
        place = self._xp.broadcast_to(self._slot + 1 - period, self._last.shape)
        return self._at(self._values, place), (place >= self._begin) & self._at(self._known, place)

    def until(self, position: int) -> "Past":
        """The past of the first items alone."""
        return Past(*(array[:, :position] for array in (self._values, self._known, self._begin)))

    def _line(self, other: Int[Any, "B T"]) -> Float[Any, "B T"]:
        """The line through the last values and those at other slots before them."""
        distance = self._xp.maximum(self._last - other, 1)
        slope = (self.last - self._at(self._values, other)) / distance
        return self.last + slope * (self._slot + 1 - self._last)

    def _at(self, array: Shaped[Any, "B S"], place: Int[Any, "B T"]) -> Shaped[Any, "B T"]:
        return self._xp.take_along_axis(array, self._xp.clip(place, 0, len(self._slots) - 1), axis=1)


def past_of(batch: Batch, name: str, newest: int | None = None) -> Past:
    """The past of a column at all positions of windows, or at the newest."""
    values = batch.columns[name][:, :-1]
    return Past(filled(values), valid_mask(batch) & present(values), newest=newest)


def predict_targets(
    fitted: Mapping[str, Mapping[str, Parameters]], batch: Batch
) -> dict[str, dict[str, Float[Any, "B T _"]]]:
    """The outputs of a model as baselines say them, so that the same objective judges both.

    Args:
      fitted: Baselines of each target.
      batch: The windows; each target is predicted from its own past.

    Returns:
      Log-probabilities (B, T, C), which are logits, or raw outputs (B, T, W) of each target.
    """
    pasts = {target: past_of(batch, target) for target in fitted}
    return {
        target: {name: predict_baseline(name, parameters, pasts[target]) for name, parameters in rows.items()}
        for target, rows in fitted.items()
    }


def predict_baseline(name: str, parameters: Parameters, past: Past) -> Float[Any, "B T _"]:
    """The prediction of one target: log-probabilities of C classes, or the raw outputs of a real head.

    Args:
      name: The baseline.
      parameters: What it was fitted to.
      past: The target's past.
    """
    classes = "repeat" in parameters or "transitions" in parameters
    predict = _predict_classes if classes else _predict_real
    xp, marginal = past.has_last.__array_namespace__(), parameters["marginal"]
    found = xp.broadcast_to(xp.asarray(marginal), (*past.has_last.shape, len(marginal)))
    for prediction, known in () if name == "marginal" else predict(name, parameters, past):
        found = xp.where(known[..., None], prediction, found)
    return found


Steps = Iterator[tuple[Float[Any, "B T _"], Bool[Any, "B T"]]]
"""Predictions and where they hold, each in place of what came before."""


def _predict_classes(name: str, parameters: Parameters, past: Past) -> Steps:
    last, has_last = past.last, past.has_last
    xp = has_last.__array_namespace__()
    if name == "last value":
        same = last[..., None] == xp.arange(len(parameters["marginal"]))
        others = parameters["rest"][last][..., None] + parameters["marginal"]
        yield xp.where(same, parameters["repeat"], others), has_last
        return
    yield parameters["transitions"][last], has_last
    if name == "second-order Markov":
        context = past.second * len(parameters["marginal"]) + last
        row = xp.clip(xp.searchsorted(parameters["contexts"], context), 0, len(parameters["contexts"]) - 1)
        known = parameters["contexts"][row] == context
        yield parameters["after_contexts"][row], past.has_second & known


def _predict_real(name: str, parameters: Parameters, past: Past) -> Steps:
    xp = past.has_last.__array_namespace__()

    def raw(intercept: Float[Any, "W"], point: Float[Any, "B T"]) -> Float[Any, "B T W"]:
        return intercept + point[..., None] * (xp.arange(len(intercept)) == 0)

    if name == "first-order Markov":
        yield raw(parameters["own"], parameters["slope"] * past.last), past.has_last
        return
    yield raw(parameters["last"], past.last), past.has_last
    if name == "velocity":
        yield raw(parameters["own"], past.on_line()), past.has_second
    elif name == "drift":
        yield raw(parameters["own"], past.on_drift()), past.has_second
    elif name == SEASONAL:
        value, known = past.ago(parameters["period"])
        yield raw(parameters["own"], value), known


# Fitting
# ------------------------------------------------------------------------------------


class Items(NamedTuple):
    """Training items of one column, once each, and their past; n have a value."""

    values: Num[np.ndarray, "n"]
    past: Past
    """Of their rows, sequence after sequence, so that only `at` counts."""
    at: Bool[np.ndarray, "1 T"]
    """The positions after which the items come that have a value and a predecessor in their sequence."""
    following: Num[np.ndarray, "k"]
    """The values at those positions."""


def fit_baselines(windows: Windows, schema: Schema, periods: Periods = None) -> dict[str, Fitted]:
    """The baselines of each target that fit the data.

    Args:
      windows: Training data; each of its items counts once, however many windows hold it, and at most about
        a million of them are looked at.
      schema: Its columns. There is no Markov baseline of a target that has over 4096 classes.
      periods: Of the seasonal last value.

    Returns:
      Parameters for `predict_targets`, by target and baseline.
    """
    fitted: dict[str, Fitted] = {}
    windows = _once(replace(windows, columns={name: windows.columns[name] for name in schema.targets}))
    for name, kind in schema.targets.items():
        items = _items(windows, name)
        if kind == "real":
            period = periods.get(name) if isinstance(periods, Mapping) else periods
            row = DISTRIBUTIONS[schema.head(name)]
            fitted[name] = _fit_real(name, items, row, longest=windows.seq_length, period=period)
        else:
            fitted[name] = _fit_categorical(name, items, schema.n_classes[name])
    return fitted


def periods_of(fitted: Mapping[str, Fitted]) -> dict[str, int]:
    """The periods of the seasonal last value, by target."""
    return {name: int(rows[SEASONAL]["period"]) for name, rows in fitted.items() if SEASONAL in rows}


def _once(windows: Windows) -> Windows:
    """Windows, or many of them, of whose runs each item is a target once."""
    if not np.array_equal(windows.runs.first_window, np.arange(len(windows))):
        return windows
    # One window a run, as foreign formats have it: their rows repeat.
    order, most = windows.by_sequence(), max(_MAX_LOOKED_AT // (windows.seq_length + 1), _NEIGHBOURS)
    step = -(-len(order) // most)
    return targets_once(taken(windows, order[np.arange(len(order)) // _NEIGHBOURS % step == 0]), 1)


def _items(windows: Windows, name: str) -> Items:
    runs = windows.runs
    first_target, rows = runs.first_target.astype(np.int64), runs.rows.astype(np.int64)
    pieces = -(-np.maximum(rows - first_target, 0) // _ITEMS_OF_A_PIECE)
    run = np.repeat(np.arange(len(runs)), pieces)
    number = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = first_target[run] + number * _ITEMS_OF_A_PIECE
    end = np.minimum(begin + _ITEMS_OF_A_PIECE, rows[run])
    share = min(1.0, _MAX_ITEMS / max(int((end - begin).sum()), 1))
    chosen = np.unique(np.linspace(0, len(run) - 1, max(1, round(share * len(run)))).astype(np.int64))
    run, begin, end = run[chosen], begin[chosen], end[chosen]
    # Each piece with the rows before it that its first items see.
    shown = np.maximum(begin - windows.seq_length, 0)
    slices = Slices(run, runs.first_row[run] + shown, end - shown)
    values = windows.columns[name].take(slices.rows()[:, None])[:, 0]
    values = values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float64)
    first = np.repeat(np.cumsum(slices.length) - slices.length, slices.length)
    slot = np.arange(len(values))
    known, target = present(values), slot - first >= np.repeat(begin - shown, slices.length)
    visible = np.maximum(first, slot - windows.seq_length)  # The first slot that each item sees.
    at = (target & known & (slot > first))[1:]
    past = Past(filled(values)[None, :-1], known[None, :-1], visible[None, 1:])
    return Items(values[target & known], past, at[None], values[1:][at])


def _fit_categorical(name: str, items: Items, n_classes: int) -> Fitted:
    counts = np.bincount(items.values, minlength=n_classes) + 1.0  # No class is impossible.
    marginal = counts / counts.sum()
    known = items.at & items.past.has_last
    last, following = items.past.last[known], items.following[known[items.at]]
    repeat = ((last == following).sum() + 1.0) / (len(last) + 2.0)
    # What remains when the last class does not repeat is shared as the marginal shares it among the others.
    log_marginal, rest = np.log(marginal), np.log1p(-repeat) - np.log1p(-marginal)
    rows: Fitted = {
        "last value": {"marginal": log_marginal, "repeat": np.asarray(np.log(repeat)), "rest": rest},
        "marginal": {"marginal": log_marginal},
    }
    if n_classes > _MAX_CLASSES:
        logger.info("[INFO] No Markov baselines: %s has more than %d classes.", name, _MAX_CLASSES)
        return rows
    classes = np.arange(n_classes)
    transitions = _after(last, following, classes, marginal[None], marginal)
    first_order = {"marginal": log_marginal, "transitions": np.log(transitions).astype(np.float32)}
    known = items.at & items.past.has_second
    context = items.past.second[known].astype(np.int64) * n_classes + items.past.last[known]
    contexts, often = np.unique(context, return_counts=True)
    # The commonest contexts, as many as there is room for; there is one at least.
    commonest = np.sort(np.argsort(-often, kind="stable")[: max(_MAX_CELLS // n_classes, 1)])
    contexts = contexts[commonest] if len(contexts) else np.zeros(1, np.int64)
    following = items.following[known[items.at]]
    after = _after(context, following, contexts, transitions[contexts % n_classes], marginal)
    second_order = {"contexts": contexts.astype(np.int32), "after_contexts": np.log(after).astype(np.float32)}
    return rows | {"first-order Markov": first_order, "second-order Markov": first_order | second_order}


def _after(
    context: Num[np.ndarray, "k"],
    following: Num[np.ndarray, "k"],
    contexts: Num[np.ndarray, "R"],
    backoff: Float[np.ndarray, "#R C"],
    marginal: Float[np.ndarray, "C"],
) -> Float[np.ndarray, "R C"]:
    """Probabilities of the next class (columns) after each context (rows), smoothed towards a simpler guess.

    The weight of that guess is the number of different classes that followed (Witten and Bell). One item
    more is drawn from the marginal, so that what always followed n times is never surer than n can tell.

    Args:
      context: The context of each item.
      following: Its class.
      contexts: The contexts to tell apart, ascending.
      backoff: The simpler guess.
      marginal: The share of each class.
    """
    n_classes = backoff.shape[-1]
    row = np.clip(np.searchsorted(contexts, context), 0, len(contexts) - 1)
    flat = (row * n_classes + following)[contexts[row] == context]
    counts = np.bincount(flat, minlength=len(contexts) * n_classes).reshape(len(contexts), n_classes)
    kinds = np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
    return (counts + kinds * backoff + marginal) / (counts.sum(axis=1, keepdims=True) + kinds + 1)


def _fit_real(
    name: str, items: Items, predicted: Distribution, *, longest: int, period: int | None
) -> Fitted:
    past, at, following = items.past, items.at, items.following

    def raw(point: Float[np.ndarray, "_"], truth: Float[np.ndarray, "_"], centre: float = 0.0) -> np.ndarray:
        """The raw outputs that stand for a constant, and the deviation of what is predicted with it."""
        scale = math.sqrt(np.square(truth - point - centre).mean()) if len(truth) else 1.0
        return predicted.raw(np.asarray(centre), np.asarray(scale))

    def fitted(point: Float[np.ndarray, "1 T"], known: Bool[np.ndarray, "1 T"]) -> dict[str, np.ndarray]:
        chosen = at & known
        return {**simple, "own": raw(point[chosen], following[chosen[at]])}

    mean = float(items.values.mean()) if len(items.values) else 0.0
    marginal = raw(np.zeros(len(items.values)), items.values, mean)
    known = at & past.has_last
    last, after = past.last[known], following[known[at]]
    simple = {"marginal": marginal, "last": raw(last, after)}
    slope, intercept = _line(last, after)
    line = {"marginal": marginal, "slope": np.asarray(slope), "own": raw(slope * last, after, intercept)}
    rows: Fitted = {"last value": simple, "marginal": {"marginal": marginal}, "first-order Markov": line}
    if longest < 2:
        return rows
    rows["velocity"] = fitted(past.on_line(), past.has_second)
    if period is not None and period > longest:
        text = "[INFO] No seasonal baseline of %s: its period, %d, is longer than the window, %d."
        logger.info(text, name, period, longest)
    else:
        period = _period(items, longest) if period is None else period
        rows[SEASONAL] = {**fitted(*past.ago(np.asarray(period))), "period": np.asarray(period)}
    if longest > 2:
        rows["drift"] = fitted(past.on_drift(), past.has_second)
    return rows


def _period(items: Items, longest: int) -> int:
    """The period from 2 to `longest` by which the seasonal last value errs least in training."""
    lags = np.arange(2, longest + 1)
    past, at = items.past.until(_MAX_LOOKED_AT // len(lags)), items.at[:, : _MAX_LOOKED_AT // len(lags)]
    last, after = past.last, items.following[: np.count_nonzero(at)]
    if not len(after):
        return 2
    errors = []
    for lag in lags:
        value, known = past.ago(lag)
        errors.append(np.square(np.where(known, value, last)[at] - after).mean())
    return int(lags[np.argmax(np.asarray(errors) <= _NEARLY_AS_GOOD * min(errors))])


def _line(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "k"]) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    if len(x) == 0:
        return 0.0, 0.0
    spread = x - x.mean()
    variance = float(spread @ spread)
    slope = float(spread @ y) / variance if variance > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())
