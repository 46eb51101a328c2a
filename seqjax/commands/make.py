"""`seqjax make`: the folders of a project, and a commented template of every configuration.

The templates are the YAML files in seqjax/templates. `configs/id_maps` is not among the folders: files in it
replace what preprocess learns, so that it is for its user to create.
"""

import logging
from importlib import resources
from pathlib import Path

from seqjax.config.make import MakeConfig
from seqjax.errors import ConfigError, Problem

logger = logging.getLogger(__name__)

FOLDERS = ("configs/metadata_configs", "data", "models", "checkpoints", "outputs", "logs")
TEMPLATES = ("preprocess.yaml", "train.yaml", "infer.yaml", "evaluate.yaml", "hyperparameter_search.yaml")
IGNORED = ("models/", "logs/", "checkpoints/", "outputs/", "data/", ".DS_Store")


def make(config: MakeConfig) -> Path:
    """Creates a project and returns its folder.

    What is there already stays: an existing folder is filled up, and its .gitignore is kept.

    Raises:
      ConfigError: if the project has a configs folder already, or cannot be created.
    """
    project = Path(config.project_name)
    try:
        _create(project)
    except FileExistsError as error:
        in_the_way = Path(error.filename)
        advice = "Choose another name, or move it away."
        raise _mistake(f"{in_the_way} exists already, and is not overwritten. {advice}") from None
    except OSError as error:
        raise _mistake(f"{error.filename} cannot be created: {error.strerror}.") from None
    logger.info("Created the project %s.", project)
    logger.info(
        "Next: put a table into %s, fill in %s,", project / "data", project / "configs/preprocess.yaml"
    )
    logger.info("and run 'seqjax preprocess' in %s.", project)
    return project


def _create(project: Path) -> None:
    project.mkdir(parents=True, exist_ok=True)
    configs = project / "configs"
    configs.mkdir()
    for folder in FOLDERS:
        (project / folder).mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        text = resources.files("seqjax").joinpath("templates", name).read_text(encoding="utf-8")
        (configs / name).write_text(text, encoding="utf-8")
    gitignore = project / ".gitignore"
    if not gitignore.exists():
        gitignore.write_text("".join(f"{line}\n" for line in IGNORED), encoding="utf-8")


def _mistake(problem: str) -> ConfigError:
    return ConfigError("seqjax make", [Problem("project_name", problem)])
