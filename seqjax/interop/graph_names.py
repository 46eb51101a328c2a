"""Names of the values in a graph, which must all differ."""

from collections.abc import Container


def free_name(name: str, taken: Container[str]) -> str:
    """The name, with as many underscores behind it as make it differ from those that are taken."""
    while name in taken:
        name += "_"
    return name
