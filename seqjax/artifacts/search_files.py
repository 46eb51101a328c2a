"""Files of a hyperparameter search: a configuration for each run, its progress, the results.

<model_config_write_path>/<run>.yaml                 a complete training configuration
<model_config_write_path>/<name>-search.json         the search, and the outcome of each finished run
<model_config_write_path>/<name>-study.db            Optuna's study
outputs/hyperparameter_search/<name>.csv, .json, .html   the summary

The second file is what an interrupted search goes on from. It is replaced as a whole after each run, so that
it is complete whenever the program is killed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from seqjax.artifacts.atomic import write_text
from seqjax.config.base import ConfigModel, validate
from seqjax.errors import ArtifactError, ConfigError


@dataclass(frozen=True)
class SearchFiles:
    """The files of the search `name` in the project at `root`."""

    root: Path
    name: str
    configs: Path
    """The folder of the configurations of runs."""

    @property
    def state(self) -> Path:
        """Progress of the search."""
        return self.configs / f"{self.name}-search.json"

    def config(self, run: str) -> Path:
        """The training configuration of a run."""
        return self.configs / f"{run}.yaml"

    @property
    def study(self) -> Path:
        """Optuna's study of the search."""
        return self.configs / f"{self.name}-study.db"

    def summary(self, extension: str) -> Path:
        """The ranked runs."""
        return self.root / "outputs" / "hyperparameter_search" / f"{self.name}.{extension}"


class Outcome(ConfigModel):
    """Result of a run, by its number and that of its combination in the space."""

    run: int
    combination: int
    status: Literal["complete", "stopped", "failed"]
    """stopped is one that others were preferred to before its end."""
    reason: str | None = None
    """The message of the error, where it failed."""
    best_validation_loss: float | None = None
    best_score: float | None = None
    """The number by which runs are ranked whose losses cannot be compared."""
    best_epoch: int | None = None
    last_epoch: int | None = None
    seconds: float
    """Time since it was last started."""
    models: tuple[str, ...] = ()
    """The files of its best model."""


class Waiting(ConfigModel):
    """A run after an epoch at which it waited for the others."""

    loss: float
    """The lowest validation loss until then, that of `best_epoch`."""
    score: float | None = None
    best_epoch: int
    seconds: float
    """Time since it last waited."""


class SearchState(ConfigModel):
    """Progress of a search."""

    config: dict[str, Any]
    metadata_sha256: str
    """Digest of the data's metadata, which decides which combinations can be trained."""
    outcomes: dict[int, Outcome]
    """Of each finished run, by its number."""
    paused: dict[int, dict[int, Waiting]] = Field(default_factory=dict)
    """Run and epoch to its state when it waited there for the others."""


def load_state(path: Path) -> SearchState | None:
    """Reads the progress of a search; None where it has not begun.

    Raises:
      ArtifactError: The file is damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return validate(SearchState, values, str(path))
    except FileNotFoundError:
        return None
    except (ValueError, IsADirectoryError, ConfigError) as error:
        raise ArtifactError(
            f"{path} does not hold the state of a search ({error}). Move it away to start the search anew."
        ) from None


def save_state(path: Path, state: SearchState) -> None:
    """Writes the file that `load_state` reads."""
    write_text(path, json.dumps(state.model_dump(mode="json"), indent=1))
