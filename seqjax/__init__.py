"""seqjax: from a table of event sequences to a trained, exported causal transformer.

The public names are those of `seqjax.api`, which is imported on first use, so that `import seqjax` is
instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seqjax.version import __version__ as __version__

if TYPE_CHECKING:
    from seqjax.api import *  # noqa: F403


def __getattr__(name: str) -> Any:  # noqa: ANN401 (a public name of any type)
    api = import_module("seqjax.api")
    if name == "__all__":
        return api.__all__
    if name not in api.__all__:
        raise AttributeError(f"module 'seqjax' has no attribute {name!r}")
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("seqjax.api").__all__})
