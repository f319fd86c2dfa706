"""The documents name only what is there: paths, tests and modules in backticks, links, and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "design/*.md", "docs/*.md", "benchmarks/README.md")
    for path in sorted(ROOT.glob(pattern))
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

#: Where a path in a document may start; the document's folder is another place.
STARTS = (ROOT, ROOT / "urst_tiles", ROOT / "pipelines")

#: What stands for a name of the reader's choice, as in ``nets/NAME.py``.
PLACEHOLDER = "NAME"

LINK = re.compile(r"\]\(([^)\s]+)\)")
IMPORT = re.compile(r"^from (urst_tiles[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def prose(document: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def words(document: Path) -> Iterator[str]:
    """Every word in backticks."""
    for span in re.findall(r"`([^`\n]+)`", prose(document)):
        yield from (word.strip(",;:()\"'") for word in span.split())


def is_path(word: str) -> bool:
    """Whether a word looks like a path of this repository: it ends in .py or begins with a folder of it."""
    if PLACEHOLDER in word or not re.fullmatch(r"[\w.*/-]+", word):
        return False
    first, slash, _ = word.partition("/")
    in_a_folder = bool(slash) and first != ".." and any((start / first).is_dir() for start in STARTS)
    return word.endswith(".py") or in_a_folder


@cache
def file_names() -> frozenset[str]:
    """The name of every Python file of this repository."""
    folders = ("urst_tiles", "pipelines", "benchmarks", "tests")
    return frozenset(path.name for folder in folders for path in (ROOT / folder).rglob("*.py"))


def exists(word: str, document: Path) -> bool:
    """Whether a path is there; a bare file name may be that of a file in any folder."""
    if "/" not in word and word in file_names():
        return True
    return any(any(start.glob(word.rstrip("/"))) for start in (*STARTS, document.parent))


@cache
def defined_tests() -> frozenset[str]:
    """The name of every test."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


def is_module(name: str) -> bool:
    """Whether ``urst_tiles.folder.module`` is a module, or its last part a word of the module before it."""
    path = ROOT.joinpath(*name.split("."))
    if (path / "__init__.py").is_file() or path.with_suffix(".py").is_file():
        return True
    parents = (path.parent / "__init__.py", path.parent.with_suffix(".py"))
    return any(p.is_file() and re.search(rf"\b{path.name}\b", p.read_text()) for p in parents)


def headings(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_path_is_there(document: Path) -> None:
    assert not sorted({word for word in words(document) if is_path(word) and not exists(word, document)})


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_test_that_is_named_is_there(document: Path) -> None:
    named = {word for word in words(document) if re.fullmatch(r"test_\w+", word)}
    assert not sorted(named - defined_tests())


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_module_is_there(document: Path) -> None:
    named = {word for word in words(document) if re.fullmatch(r"urst_tiles(\.\w+)+", word)}
    assert not sorted(name for name in named if not is_module(name))


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    wrong = []
    for link in LINK.findall(prose(document)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        path = document.parent / target if target else document
        if not path.exists() or (anchor and anchor not in headings(path)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_import_in_a_program_works(document: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        for module, names in IMPORT.findall(block):
            for name in names.split(","):
                if not hasattr(import_module(module), name.strip()):
                    import_module(f"{module}.{name.strip()}")


def test_these_checks_can_fail() -> None:
    readme = ROOT / "README.md"
    assert is_path("nets/nosuch.py") and not exists("nets/nosuch.py", readme)
    assert is_path("nets/") and exists("nets/", readme) and exists("pipelines/train_*.py", readme)
    assert not is_path("OUTPUT.json") and not is_path("nets/NAME.py") and not is_path("s3://bucket/job")
    assert is_module("urst_tiles.geometry") and is_module("urst_tiles.geometry.Box")
    assert not is_module("urst_tiles.nosuch.module") and not is_module("urst_tiles.geometry.nosuch")
