"""The lock is complete and public, and a wheel holds what a user needs."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import seqjax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())


def test_lock_comes_from_public_places_alone():
    for package in LOCK["package"]:
        source = package["source"]
        assert source in ({"editable": "."}, {"registry": "https://pypi.org/simple"}), package["name"]
        for file in [package.get("sdist"), *package.get("wheels", [])]:
            assert file is None or urlparse(file["url"]).hostname == "files.pythonhosted.org", package["name"]


def test_lock_is_of_this_project():
    locked = next(package for package in LOCK["package"] if package["name"] == "seqjax")["metadata"]
    assert SpecifierSet(LOCK["requires-python"]) == SpecifierSet(PROJECT["requires-python"])
    assert set(locked["provides-extras"]) == {
        *("cuda12", "dev", "infer", "plots", "ray", "search", "tensorboard")
    }
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    declared = {(group, *_key(Requirement(text))) for group, texts in groups.items() for text in texts}
    assert declared == {_locked_key(entry) for entry in locked["requires-dist"]}


def _key(requirement):
    return canonicalize_name(requirement.name), frozenset(requirement.extras), requirement.specifier


def _locked_key(entry):
    group = entry.get("marker", "").removeprefix("extra == ").strip("'")
    return group, entry["name"], frozenset(entry.get("extras", [])), SpecifierSet(entry["specifier"])


def test_inference_alone_needs_some_of_the_dependencies():
    extra = PROJECT["optional-dependencies"]["infer"]
    assert set(extra) < set(PROJECT["dependencies"])
    command = next(
        line
        for line in (ROOT / "docs" / "infer.md").read_text().splitlines()
        if "pip install jaxtyping" in line
    )
    assert command.split("pip install ")[1].split() == [Requirement(text).name for text in extra]


def test_version_is_said_once():
    assert PROJECT["version"] == seqjax.__version__


def test_changelog_has_an_open_section():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_installed_command_is_the_declared_one():
    commands = metadata.entry_points(group="console_scripts", name="seqjax")
    if not commands:
        pytest.skip("seqjax is not installed in this environment")
    assert {command.value for command in commands} == {PROJECT["scripts"]["seqjax"]}


def test_wheel_holds_all_but_tests_and_tools(tmp_path):
    pytest.importorskip("hatchling", reason="the dev extra is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    templates = {f"seqjax/templates/{path.name}" for path in (ROOT / "seqjax" / "templates").glob("*.yaml")}
    assert templates
    assert names >= templates | {"seqjax/py.typed", "seqjax/cli.py"}
    assert names >= {"seqjax/reports/page.css", "seqjax/reports/page.js"}
    assert not any(name.startswith(("tests/", "tools/")) for name in names)
