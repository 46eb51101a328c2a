"""The values of `optimizer`, `scheduler` and `criterion`: names and keyword arguments.

One small model a name, with torch's names and torch's defaults, in `optimizers.py` and `schedulers.py`;
`seqjax/optim` holds one builder a name. They are apart so that a misspelt argument is reported without
importing jax.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, ConfigDict

from seqjax.config.base import ConfigModel, Problems, suggestion, validate
from seqjax.config.optimizers import OPTIMIZERS, OptimizerSettings
from seqjax.config.schedulers import SCHEDULERS, OneCycleLR, SchedulerSettings
from seqjax.config.schema import HEADS, ColumnKind, HeadName
from seqjax.errors import ConfigError, Problem

CRITERIA: Mapping[str, HeadName] = {
    "CrossEntropyLoss": "categorical",
    "NLLLoss": "categorical",
    "MSELoss": "point",
    "L1Loss": "point",
    "SmoothL1Loss": "point",
    "HuberLoss": "point",
    "GaussianNLLLoss": "gaussian",
}
"""The head that each loss trains."""


def criteria_of(kind: ColumnKind) -> tuple[str, ...]:
    """The losses of a kind of column."""
    return tuple(name for name, head in CRITERIA.items() if HEADS[head].kind == kind)


class NamedSpec(ConfigModel):
    """Something chosen by name, with the keyword arguments of that name."""

    model_config = ConfigDict(extra="allow")

    name: str

    @classmethod
    def of(cls, name: str, **arguments: object) -> Self:
        """A spec from keyword arguments."""
        return cls.model_validate({"name": name, **arguments})

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments: every key but `name`."""
        return dict(self.model_extra or {})


def optimizer_settings(spec: NamedSpec) -> OptimizerSettings:
    """The checked keyword arguments of an optimizer, defaults filled in; raises `Problems`."""
    return _settings(spec, OPTIMIZERS, "optimizer")


def scheduler_settings(spec: NamedSpec) -> SchedulerSettings:
    """The checked keyword arguments of a scheduler, defaults filled in; raises `Problems`."""
    return _settings(spec, SCHEDULERS, "scheduler")


def schedule_length(spec: NamedSpec) -> int | None:
    """For how many steps a schedule is defined, or None for one without an end."""
    settings = scheduler_settings(spec)
    return settings.steps if isinstance(settings, OneCycleLR) else None


def cycles_momentum(scheduler: NamedSpec) -> bool:
    """True if a schedule moves momentum as well as the learning rate."""
    return bool(getattr(scheduler_settings(scheduler), "cycle_momentum", False))


def has_momentum(optimizer: NamedSpec) -> bool:
    """True if an optimizer has a momentum, or betas whose first is one."""
    return not {"momentum", "betas"}.isdisjoint(OPTIMIZERS[optimizer.name].model_fields)


Settings = TypeVar("Settings", bound=ConfigModel)


def _settings(spec: NamedSpec, table: Mapping[str, type[Settings]], what: str) -> Settings:
    if spec.name not in table:
        hint = suggestion(spec.name, list(table), list_all=True)
        raise Problems([Problem("name", f"no {what} is called {spec.name!r}. {hint}")])
    try:
        return validate(table[spec.name], spec.arguments, spec.name)
    except ConfigError as error:
        raise Problems(error.problems) from None


def _checked(settings: Callable[[NamedSpec], object]) -> AfterValidator:
    """Checks a section's name and arguments, and leaves it as it is."""

    def check(spec: NamedSpec) -> NamedSpec:
        settings(spec)
        return spec

    return AfterValidator(check)


OptimizerSpec = Annotated[NamedSpec, _checked(optimizer_settings)]
SchedulerSpec = Annotated[NamedSpec, _checked(scheduler_settings)]
