"""The configuration of `seqjax make`."""

from typing import Annotated

from pydantic import Field

from seqjax.config.base import ConfigModel


class MakeConfig(ConfigModel):
    """Creates a project: folders, .gitignore, and a commented template of each command's configuration."""

    project_name: Annotated[str, Field(min_length=1)]
    """Folder to create, or an existing one without configs."""
