"""Distributions of the next item, as heads state them: one class a kind of head, and a table of them.

A head is a linear map to `Schema.head_width` numbers, its *raw* outputs. `parameters` makes of them what the
functions of its distribution read. What a model returns are these parameters as they are `stated`, which is
the same but for classes, whose logits become log-probabilities. All of it is arithmetic without state,
written for numpy and jax arrays alike: the array says which. Real values and their parameters are
standardised.

Which head a target has is a matter of its criterion (`seqjax.config.optimization.CRITERIA`). To add one, add
its name there, its kind and width to `seqjax.config.schema.HEADS`, and a class and a row here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

from seqjax.config.schema import HeadName, Schema

Parameters = Float[Any, "*batch W"]
Reals = Float[Any, "*batch"]

_SMALLEST_SCALE = 1e-3
"""In standard deviations of the column. The square is the `eps` of torch's GaussianNLLLoss; a density of
repeated values, such as rounded prices, has no bound otherwise."""
_UNIT_SCALE = math.log(math.expm1(1 - _SMALLEST_SCALE))
"""Added to the raw scale, so that a new head, whose outputs are 0, has the scale 1."""
_MARGIN = 2.0**-24
"""Distance from 0 and 1 that a probability keeps before it is turned into a quantile."""


@dataclass(frozen=True)
class SamplingRule:
    """Changes of a distribution before a value is drawn: first the temperature, then what is cut off."""

    temperature: float = 1.0
    """Divisor of log-probabilities: below 1 sharper, above 1 flatter."""
    top_k: int | None = None
    """Only the k most probable classes are drawn; the lower id first where two are alike."""
    top_p: float | None = None
    """Only the fewest most probable classes are drawn that hold this probability together."""


AS_PREDICTED = SamplingRule()
"""Draws from the distributions as they are."""


class Distribution:
    """A row of `DISTRIBUTIONS`; this one states a value without its uncertainty.

    Its losses differ by criterion: they are rows of `seqjax.training.objective.POINT_LOSSES`.
    """

    suffix: ClassVar[str] = "_value"
    """Follows a target's name in the name of a graph's output."""
    is_density: ClassVar[bool] = False
    """True if the probability of a real value is known, and it can be drawn."""
    has_classes: ClassVar[bool] = False
    """True if a probability is stated for each class."""

    @property
    def is_drawn(self) -> bool:
        """True if there is something to draw from."""
        return self.is_density or self.has_classes

    def parameters(self, raw: Float[Any, "*batch W"]) -> Parameters:
        """The parameters that raw outputs stand for."""
        return raw

    def stated(self, raw: Float[Any, "*batch W"]) -> Parameters:
        """The parameters as a model returns them."""
        return self.parameters(raw)

    def raw(self, mean: Reals, scale: Reals) -> Parameters:
        """The raw outputs that stand for a mean and a standard deviation of real values."""
        del scale
        return mean[..., None]

    def point(self, parameters: Parameters) -> Shaped[Any, "*batch"]:
        """The value to predict: the mean, or the mode of classes (the lower id of two that are alike)."""
        return parameters[..., 0]

    def exported(self, parameters: Parameters) -> Float[Any, "*batch _"]:
        """The output of a graph that `suffix` names, from stated parameters."""
        return parameters[..., :1]

    def log_prob(self, parameters: Parameters, truth: Num[Any, "*batch"]) -> Reals:
        """The logarithm of the probability, or of its density, in nats."""
        raise NotImplementedError

    def quantile(self, parameters: Parameters, level: Reals) -> Shaped[Any, "*batch"]:
        """The value below which a share `level` of the distribution lies."""
        raise NotImplementedError

    def draw(
        self, parameters: Parameters, uniform: Reals, rule: SamplingRule = AS_PREDICTED
    ) -> Shaped[Any, "*batch"]:
        """The value that each number in [0, 1) selects.

        Args:
          parameters: Stated parameters.
          uniform: The numbers, one a distribution.
          rule: How the distributions are changed before.
        """
        raise NotImplementedError

    def moments(self, parameters: Float[np.ndarray, "*batch W"]) -> Float[np.ndarray, "*batch W"]:
        """Numbers whose averages over several distributions are those of their mixture."""
        return parameters

    def mixed(self, moments: Float[np.ndarray, "*batch W"]) -> Float[np.ndarray, "*batch W"]:
        """The inverse of `moments`."""
        return moments


class Categorical(Distribution):
    """Probabilities of classes. Parameters are logits, of which log-probabilities are some."""

    suffix = "_log_probs"
    has_classes = True

    def stated(self, raw: Float[Any, "*batch C"]) -> Parameters:
        """Log-probabilities."""
        if isinstance(raw, np.ndarray):
            shifted = raw - raw.max(axis=-1, keepdims=True)
            return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        import jax

        return jax.nn.log_softmax(raw, axis=-1)

    def point(self, parameters: Parameters) -> Int[Any, "*batch"]:
        """The most likely class."""
        return parameters.argmax(axis=-1)

    def exported(self, parameters: Parameters) -> Float[Any, "*batch _"]:
        """All log-probabilities."""
        return parameters

    def log_prob(self, parameters: Parameters, truth: Int[Any, "*batch"]) -> Reals:
        """The log-probability of the true class."""
        if isinstance(parameters, np.ndarray):
            return np.take_along_axis(self.stated(parameters), truth[..., None], axis=-1)[..., 0]
        import optax

        return -optax.softmax_cross_entropy_with_integer_labels(parameters, truth)

    def draw(
        self, parameters: Parameters, uniform: Reals, rule: SamplingRule = AS_PREDICTED
    ) -> Int[Any, "*batch"]:
        """The class at which the cumulative distribution passes the number."""
        xp = parameters.__array_namespace__()
        wide = parameters.astype(np.float64) if xp is np else parameters
        scaled = wide if rule.temperature == 1 else wide / rule.temperature
        if rule.top_k is None and rule.top_p is None:
            return _passed(xp, _weights(xp, scaled), uniform)
        order = xp.argsort(-scaled, axis=-1, stable=True)
        weights = _cut(xp, _weights(xp, xp.take_along_axis(scaled, order, axis=-1)), rule)
        rank = _passed(xp, weights, uniform)
        return xp.take_along_axis(order, rank[..., None], axis=-1)[..., 0]

    def moments(self, parameters: Float[np.ndarray, "*batch C"]) -> Float[np.ndarray, "*batch C"]:
        """Probabilities."""
        return np.exp(parameters)

    def mixed(self, moments: Float[np.ndarray, "*batch C"]) -> Float[np.ndarray, "*batch C"]:
        """Log-probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(moments)


class Gaussian(Distribution):
    """A normal distribution; parameters are its mean and its standard deviation.

    -log p = log(scale) + (y - mean)^2 / (2 scale^2) + log(2 pi) / 2,   scale = softplus(raw + c) + 0.001,
    which is torch's GaussianNLLLoss with `full=True`, in float32 whatever the model computes in. It is
    finite, as is its gradient, for all raw outputs and values up to 1e9 standard deviations.
    """

    is_density = True

    def parameters(self, raw: Float[Any, "*batch 2"]) -> Parameters:
        """Mean and standard deviation."""
        xp = raw.__array_namespace__()
        wide = raw if raw.dtype.itemsize >= 4 else raw.astype(np.float32)
        shifted = wide[..., 1:] + np.float32(_UNIT_SCALE)
        softplus = xp.maximum(shifted, 0) + xp.log1p(xp.exp(-xp.abs(shifted)))
        return xp.concatenate([wide[..., :1], softplus + np.float32(_SMALLEST_SCALE)], axis=-1)

    def raw(self, mean: Reals, scale: Reals) -> Float[Any, "*batch 2"]:
        """The raw outputs that stand for a mean and a standard deviation, which is at least 0.001."""
        excess = np.maximum(scale - _SMALLEST_SCALE, 1e-6)
        return np.stack([mean, excess + np.log(-np.expm1(-excess)) - _UNIT_SCALE], axis=-1)

    def log_prob(self, parameters: Parameters, truth: Num[Any, "*batch"]) -> Reals:
        """The logarithm of the density."""
        xp = parameters.__array_namespace__()
        mean, scale = parameters[..., 0], parameters[..., 1]
        distance = (truth - mean) / scale
        return -(xp.log(scale) + distance * distance / 2) - 0.5 * math.log(2 * math.pi)

    def quantile(self, parameters: Parameters, level: Reals) -> Reals:
        """The mean, and so many standard deviations more."""
        return parameters[..., 0] + parameters[..., 1] * _normal_quantile(level)

    def draw(self, parameters: Parameters, uniform: Reals, rule: SamplingRule = AS_PREDICTED) -> Reals:
        """The quantile of the number; a temperature T scales the variance by T."""
        mean = parameters[..., 0]
        return mean + math.sqrt(rule.temperature) * (self.quantile(parameters, uniform) - mean)

    def moments(self, parameters: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
        """Mean and mean square."""
        mean, scale = np.moveaxis(parameters.astype(np.float64), -1, 0)
        return np.stack([mean, mean**2 + scale**2], axis=-1)

    def mixed(self, moments: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
        """The normal distribution of the same mean and variance."""
        mean, square = np.moveaxis(moments, -1, 0)
        return np.stack([mean, np.sqrt(np.maximum(square - mean**2, _SMALLEST_SCALE**2))], axis=-1)


DISTRIBUTIONS: Mapping[HeadName, Distribution] = {
    "categorical": Categorical(),
    "point": Distribution(),
    "gaussian": Gaussian(),
}


def without_unknown(log_probs: Float[Any, "*batch C"]) -> Float[Any, "*batch C"]:
    """Log-probabilities by which class 0, which stands for a missing value, is never predicted."""
    xp = log_probs.__array_namespace__()
    return xp.where(xp.arange(log_probs.shape[-1]) == 0, -np.inf, log_probs)


def distribution_of(schema: Schema, target: str) -> Distribution:
    """The distribution that a model predicts of a target."""
    return DISTRIBUTIONS[schema.head(target)]


def _normal_quantile(level: Reals) -> Reals:
    """The standard normal quantile, to 1e-6: PPND7 of Wichura (1988), Applied Statistics 37, 477-484."""
    xp = level.__array_namespace__()
    inside = xp.clip(level, _MARGIN, 1 - _MARGIN)
    centre = inside - 0.5
    r = 0.180625 - centre * centre
    near = centre * _polynomial(r, 59.109374720, 159.29113202, 50.434271938, 3.3871327179)
    near = near / _polynomial(r, 67.187563600, 78.757757664, 17.895169469, 1.0)
    r = xp.sqrt(-xp.log(xp.minimum(inside, 1 - inside))) - 1.6
    far = _polynomial(r, 0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777)
    far = far / _polynomial(r, 0.12021132975, 0.73700164250, 1.0)
    return xp.where(xp.abs(centre) <= 0.425, near, xp.sign(centre) * far)


def _polynomial(x: Reals, *coefficients: float) -> Reals:
    """The polynomial with these coefficients, of the highest power first, by Horner's rule."""
    value = x * 0 + coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _weights(xp: ModuleType, logs: Float[Any, "*batch C"]) -> Float[Any, "*batch C"]:
    """Weights in proportion to the probabilities, at most 1."""
    return xp.exp(logs - logs.max(axis=-1, keepdims=True))


def _cut(xp: ModuleType, weights: Float[Any, "*batch C"], rule: SamplingRule) -> Float[Any, "*batch C"]:
    """Zeroes those of descending weights that are not to be drawn; the first always remains."""
    if rule.top_k is not None:
        weights = xp.where(xp.arange(weights.shape[-1]) < rule.top_k, weights, xp.zeros_like(weights))
    if rule.top_p is None:
        return weights
    before = xp.cumsum(weights, axis=-1) - weights
    enough = rule.top_p * weights.sum(axis=-1, keepdims=True)
    return xp.where(before < enough, weights, xp.zeros_like(weights))


def _passed(xp: ModuleType, weights: Float[Any, "*batch C"], uniform: Reals) -> Int[Any, "*batch"]:
    """The places at which the cumulative weights pass their share `uniform` of the whole."""
    cumulative = xp.cumsum(weights, axis=-1)
    whole = cumulative[..., -1:]
    passed = (cumulative <= uniform[..., None] * whole).sum(axis=-1)
    # Rounding may let the number pass every place; the first that completes the sum is the last possible one.
    return xp.minimum(passed, xp.argmax(cumulative >= whole, axis=-1))
