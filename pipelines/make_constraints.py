"""Write the hashes in constraints.txt anew: of every wheel of its versions that we may install.

    make constraints                                   # or, with the packages of the development environment:
    python pipelines/make_constraints.py constraints.txt

The versions are those in the file: to move one, or to add a package, write ``name==version`` on a line of its
own and run the program. The text on top of the file stays. Hashes are those that the package index lists (the
one pip is told to use, by ``PIP_INDEX_URL`` or its configuration; ``--index`` names another), of all wheels
for Linux and macOS and any CPython from 3.11 on, so that pip may choose among them as it does without hashes.
A package in ``WITHOUT_HASH`` keeps its version alone.

Where a package has no wheel for one of the systems in ``TARGETS``, the hash of its source distribution is
there too, and the program names the package: it is built there, by packages that must be named in
constraints.txt (and as ``BUILDERS`` in the Makefile). Where it has neither, the program ends with an error
and leaves the file as it is, as it does for a version that the index does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from command_line import Parser, existing_file, program
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from urst_tiles.errors import BadInput
from urst_tiles.storage.publish import publish

#: Packages of which users install other builds than were tested, all under one version: torch for CUDA or for
#: CPUs alone, from another index. No list of hashes holds them all.
WITHOUT_HASH = ("torch",)

#: Python and processor of each system that every package needs a wheel for.
TARGETS = [(minor, machine) for minor in (11, 12, 13) for machine in ("x86_64", "aarch64")]

#: The oldest CPython, as in pyproject.toml.
OLDEST = 11

#: PEP 691: the page of a package as JSON.
ACCEPT = "application/vnd.pypi.simple.v1+json"

#: What a line of the file may be.
LINE = re.compile(r"#|\s*$|[\w.-]+==\S+|\s+--hash=")

PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


@program
def main(words: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=existing_file, help="constraints.txt")
    parser.add_argument("--index", help="address of a package index (default: pip's)")
    wanted = parser.parse_args(words)
    index = wanted.index or pip_index()
    try:
        text = wanted.file.read_text("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{wanted.file} is no text, so no file of constraints") from None
    strange = [line for line in text.splitlines() if not LINE.match(line)]
    if strange or not PIN.search(text):
        what = f"the line {strange[0]!r}" if strange else "no package"
        raise BadInput(f"{wanted.file} has {what}: write name==version on a line of its own")
    written, built = hashed(text, index)
    publish(wanted.file, written.encode())
    print(f"{wanted.file}: {len(PIN.findall(written))} packages, {written.count('--hash=')} hashes", end="")
    print(f"; built from source on some systems: {', '.join(built) or 'none'}")


def hashed(text: str, index: str) -> tuple[str, list[str]]:
    """The text of a file of constraints, with the same comments and versions, and all hashes anew; and which
    packages are built from source on some systems."""
    pins = sorted(PIN.findall(text), key=lambda pin: (pin[0] not in WITHOUT_HASH, canonicalize_name(pin[0])))
    for name, version in pins:
        try:
            Version(version)
        except InvalidVersion:
            raise BadInput(f"{version!r} of {name} is no version, such as 1.2.3") from None
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pin: hashes(pin[0], pin[1], index), pins))
    lines = [line for line in text.splitlines() if line.startswith("#")]
    for (name, version), digests in zip(pins, found, strict=True):
        lines.append(
            " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{d}" for d in sorted(digests))])
        )
    built = [name for (name, _), digests in zip(pins, found, strict=True) if "source" in digests.values()]
    return "".join(f"{line}\n" for line in lines), built


def hashes(name: str, version: str, index: str) -> dict[str, str]:
    """The SHA-256 of each file of a package that may be installed, and whether it is a wheel or the source.

    Raises BadInput if the index has nothing for some system.
    """
    if canonicalize_name(name) in WITHOUT_HASH:
        return {}
    files = dict(listed(name, index))
    wheels = [file for file in files if is_for_us(file, version)]
    kept = {files[file]: "wheel" for file in wheels}
    for minor, machine in TARGETS:
        fits = frozenset(tags_of(minor, machine))
        if not any(fits & parse_wheel_filename(file)[3] for file in wheels):
            sources = [file for file in files if is_source(file, name, version)]
            if not sources:
                raise BadInput(f"{name} {version} has no file for Python 3.{minor} on Linux, {machine}")
            kept |= {files[file]: "source" for file in sources}
    return kept


def listed(name: str, index: str) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of each file of a package; raises BadInput where the index does not list them."""
    address = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
    try:
        with urlopen(Request(address, headers={"Accept": ACCEPT}), timeout=60) as answer:
            page: dict[str, Any] = json.load(answer)
        yield from [(each["filename"], each["hashes"]["sha256"]) for each in page["files"]]
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        raise BadInput(f"there is no page of a package index at {address} ({error}): give --index") from None


def is_for_us(file: str, version: str) -> bool:
    """Whether this is a wheel of this version for Linux (glibc) or macOS, and CPython 3.11 or newer."""
    try:
        _, found, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return False  # a source distribution
    return found == Version(version) and any(map(is_one_of_ours, tags))


def is_source(file: str, name: str, version: str) -> bool:
    """Whether this is the source distribution of this version."""
    try:
        return parse_sdist_filename(file) == (canonicalize_name(name), Version(version))
    except InvalidSdistFilename:
        return False


def is_one_of_ours(tag: Tag) -> bool:
    """Whether a tag of a wheel means one of the systems that we install on."""
    if tag.platform != "any" and not re.match(r"(many)?linux|macosx", tag.platform):
        return False
    if tag.platform.endswith(("_i686", "_ppc64le", "_s390x", "_armv7l", "_riscv64", "_loongarch64")):
        return False
    if re.fullmatch(r"(py2\.)?py3\d*|py2", tag.interpreter):
        return tag.interpreter != "py2"
    number = re.fullmatch(r"cp3(\d+)", tag.interpreter)
    if number is None or tag.abi.endswith("t"):
        return False
    return tag.abi in ("abi3", "none") or int(number[1]) >= OLDEST


def tags_of(minor: int, machine: str) -> Iterable[Tag]:
    """The tags of wheels that CPython 3.``minor`` takes on Linux with glibc 2.28 and this processor."""
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(28, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    platforms += [f"linux_{machine}"]
    yield from cpython_tags((3, minor), platforms=platforms)
    yield from compatible_tags((3, minor), f"cp3{minor}", platforms)


def pip_index() -> str:
    """The address of the package index that pip uses."""
    told = os.environ.get("PIP_INDEX_URL")
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = told or subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if found:
        return found
    from pip._internal.models.index import PyPI  # pip's default

    return str(PyPI.simple_url)


if __name__ == "__main__":
    sys.exit(main())
