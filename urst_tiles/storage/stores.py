"""Where a job folder may lie: on a file system, or on an object store that fsspec knows.

A path on an object store is a `upath.UPath`, everything else a `pathlib.Path`. Such a store takes whole
objects, gives parts of them, and lists names; it has no folders to make, no renames and no locks. What a job
folder is asked for is asked here and in ``files``, and needs no more than that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from urst_tiles.errors import BadInput, JobError, MissingFile, UrstError

T = TypeVar("T")
R = TypeVar("R")

#: Requests to an object store under way at once: each waits some 10 to 50 ms, whatever it asks for.
REQUESTS = 16


def path_of(text: str | os.PathLike[str]) -> Path:
    """A path as given on the command line: of a file system, absolute; or ``s3://bucket/folder`` and what
    else fsspec knows.

    Raises
    ------
    BadInput : the store is unknown, does not answer, or fsspec's library for it is not installed.
    """
    if is_remote(text):
        return cast(Path, text)
    text = os.fspath(text)
    if "://" not in text:
        return Path(text).absolute()
    if text.startswith("file://"):
        return Path(text.removeprefix("file://")).absolute()
    try:
        from upath import UPath

        # What other machines have written meanwhile must be seen: no listing is remembered.
        path = UPath(text, use_listings_cache=False)
        path.exists()
    except ImportError as error:
        raise BadInput(
            f"{text} needs a library that is not installed ({error}): pip install 'urst-tiles[remote]', which"
            " has S3's, or what fsspec names for another store"
        ) from None
    except Exception as error:
        raise BadInput(
            f"{text} cannot be reached ({error}); check the address, and the credentials that fsspec finds"
        ) from None
    return cast(Path, path)


def is_remote(path: Any) -> bool:
    """Whether ``path`` lies on an object store."""
    return not isinstance(path, str | os.PathLike) and hasattr(path, "fs")


@contextmanager
def asking(path: Path) -> Iterator[Any]:
    """The store of ``path``; what goes wrong there is one sentence, but for names that are not there."""
    try:
        yield path.fs  # type: ignore[attr-defined]
    except (FileNotFoundError, UrstError):
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or is_foreign(error)):
            raise
        raise JobError(
            f"the store of {path} failed ({error}); what is finished is kept, the same command goes on"
        ) from error


def is_foreign(error: Exception) -> bool:
    """Whether an error is some library's own: what networks do to a store reaches us so."""
    return type(error).__module__ != "builtins" and not isinstance(error, UrstError)


def names_in(folder: Path) -> set[str]:
    """The names directly in ``folder``; none where it is not there."""
    try:
        if not is_remote(folder):
            return set(os.listdir(folder))
        with asking(folder) as store:
            found = store.ls(_key(folder), detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {name.rstrip("/").rpartition("/")[2] for name in found}


def size_of(path: Path) -> int:
    """Bytes of a file or object; FileNotFoundError where there is none."""
    if not is_remote(path):
        return path.stat().st_size
    with asking(path) as store:
        return int(store.info(_key(path))["size"])


def read_at(path: Path, start: int, size: int) -> bytes:
    """``size`` bytes from ``start`` on, fewer where the file ends; FileNotFoundError where there is none."""
    if is_remote(path):
        with asking(path) as store:
            return store.cat_file(_key(path), start=start, end=start + size) if size else b""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, start)


def put(local: str | os.PathLike[str], path: Path) -> None:
    """A local file becomes the object ``path``, which appears whole."""
    with asking(path) as store, _into_a_bucket(path):
        store.put_file(os.fspath(local), _key(path))


def create(path: Path, content: bytes) -> bool:
    """Make the object ``path`` unless there is one, in one step; whether it was made."""
    with asking(path) as store, _into_a_bucket(path):
        try:
            store.pipe_file(_key(path), content, mode="create")
        except FileExistsError:
            return False
    return True


@contextmanager
def _into_a_bucket(path: Path) -> Iterator[None]:
    """A file was not found, where one is made: the bucket is not there."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFile(f"there is no bucket for {path} ({error}); make it first") from None


def remove(path: Path) -> None:
    """A file or object, or a folder with all in it; nothing where it is not there."""
    if is_remote(path):
        with asking(path) as store, suppress(FileNotFoundError):
            store.rm(_key(path), recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fetched(path: Path) -> Path:
    """``path`` itself, or a copy of the object on this machine, made once by each process and kept until it
    ends; FileNotFoundError where there is none."""
    if not is_remote(path):
        return path
    with asking(path) as store, _fetching:
        return _copied(path, store.ukey(_key(path)))


_fetching = threading.Lock()


@cache
def _copied(path: Path, version: str) -> Path:
    """A copy of the object in this version."""
    target = Path(_scratch().name) / f"{version[:32]}-{path.name}"
    with asking(path) as store:
        store.get_file(_key(path), os.fspath(target))
    return target


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process."""
    return tempfile.TemporaryDirectory(prefix="urst-tiles-")


def side_by_side(path: Path, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each item, in their order; for ``path`` on an object store many at once, since each
    waits."""
    if not is_remote(path):
        return [function(item) for item in items]
    with ThreadPoolExecutor(REQUESTS, "requests") as pool:
        return list(pool.map(function, items))


def _key(path: Path) -> str:
    """The store's own name of an object."""
    return path.path  # type: ignore[attr-defined]
