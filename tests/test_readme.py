"""What the documents say is real: commands parse, configurations validate, files and `make` targets exist."""

import re
import shlex
from pathlib import Path
from pkgutil import resolve_name

import pytest
import tyro

from seqjax.cli import COMMANDS
from seqjax.config.base import validate
from seqjax.config.train import TrainConfig
from seqjax.config.yaml_text import parse_yaml
from seqjax.options import options_class, overrides

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "configs/recipes/storms/README.md",
    "docs/evaluate.md",
    "docs/hyperparameter-search.md",
)


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def commands(program):
    """(document, command line) of every line in a bash block that runs `program`."""
    found = [
        (document, part.strip())
        for document in DOCUMENTS
        for block in blocks(document, "bash")
        for line in block.splitlines()
        for part in line.split("#")[0].split("&&")
    ]
    return [(document, command) for document, command in found if command.split()[:1] == [program]]


@pytest.mark.parametrize(("document", "line"), commands("seqjax"))
def test_command_parses(document, line):
    name, *words = shlex.split(line)[1:]
    command = COMMANDS[name]
    model = resolve_name(command.model)
    options = options_class(model, command)
    if words == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            tyro.cli(options, prog=f"seqjax {name}", args=words)
        return
    given = overrides(tyro.cli(options, prog=f"seqjax {name}", args=words), model)
    keys = words[2:] if words[:1] == ["--config-path"] else words
    assert bool(given) == bool(keys)
    for path in words[1:2] if keys is not words else ():
        assert list((ROOT / "configs" / "recipes").rglob(Path(path).name)), path


def test_documents_show_every_command():
    shown = {shlex.split(line)[1] for _, line in commands("seqjax")}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize(("document", "line"), commands("make"))
def test_make_target_exists(document, line):
    (target,) = shlex.split(line)[1:]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ci_runs_the_documented_test_command():
    assert ("README.md", "make test") in commands("make")
    assert re.search(r"^make test ", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_yaml_block_is_a_valid_configuration():
    (block,) = blocks("README.md", "yaml")
    values = parse_yaml(block, "README.md")
    assert isinstance(values, dict)
    validate(TrainConfig, values, "README.md")


def test_map_is_complete_and_true():
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    for row in rows:
        path = ROOT / row
        assert path.is_dir() if row.endswith("/") else path.is_file(), row
    packages = {f"seqjax/{path.parent.name}/" for path in (ROOT / "seqjax").glob("*/__init__.py")}
    assert packages <= set(rows)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_exist(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        assert (ROOT / document).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:seqjax|tests|tools|configs/recipes)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
