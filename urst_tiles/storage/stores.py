"""File systems and object stores: the operations on them that a job folder needs.

A job folder lies on a file system or on any object store that fsspec supports, such as S3. A path on an
object store is a `upath.UPath`, any other path a `pathlib.Path`. An object store accepts whole objects,
returns parts of them, and lists names; it has no folders to create, no renames and no locks. This module and
`urst_tiles.storage.publish` need no more than that.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from urst_tiles.errors import BadInput, DamagedFile, JobError, MissingFile, UrstError
from urst_tiles.storage.addresses import fsspec_options, not_installed

T = TypeVar("T")
R = TypeVar("R")

#: How many requests to an object store run at the same time: each takes some 10 to 50 ms, mostly waiting.
REQUESTS = 16

#: How many bytes of an object are compared at a time.
COMPARED_BYTES = 8 << 20


def path_of(text: str | os.PathLike[str]) -> Path:
    """The path that a user wrote, such as ``scene.job``, ``file:///data/scene.job`` or ``s3://bucket/folder``.

    A path of the file system becomes absolute. A URL of an object store that fsspec supports becomes a
    `upath.UPath`; a `upath.UPath` is returned unchanged.

    Raises
    ------
    BadInput : the store is unknown or does not answer, or the library that fsspec needs for it is not
        installed.
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

        path = UPath(text, **fsspec_options(text, write=True))
        path.exists()
    except ImportError as error:
        raise not_installed(text, error) from None
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
    """Provide the fsspec file system of ``path``, and report errors of the store as JobError.

    FileNotFoundError and errors of this package pass unchanged, as do errors that the store did not cause.
    """
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
    """Whether another library defines the class of ``error``, as for errors of a store's network."""
    return type(error).__module__ != "builtins" and not isinstance(error, UrstError)


def names_in(folder: Path) -> set[str]:
    """The names of the files and folders directly in ``folder``; empty if it does not exist."""
    try:
        if not is_remote(folder):
            return set(os.listdir(folder))
        with asking(folder) as store:
            names = store.ls(_key(folder), detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {name.rstrip("/").rpartition("/")[2] for name in names}


def exists(path: Path) -> bool:
    """Whether there is a file, a folder, a symbolic link or an object of this name."""
    if not is_remote(path):
        return os.path.lexists(path)
    with asking(path) as store:
        return bool(store.exists(_key(path)))


def put_tree(folder: Path, path: Path, last: str) -> None:
    """Upload the files in a folder of this machine as objects below ``path``; the file ``last`` goes last."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    names.remove(last)
    side_by_side(path, lambda name: put(folder / name, path / name), names)
    put(folder / last, path / last)


def get_tree(path: Path, target: Path) -> None:
    """Download an object, or all objects below a name, as a file or a folder of this machine.

    Raises
    ------
    MissingFile : there is nothing of this name.
    BadInput : the names of the objects are none for files, or they take more than is free on the disk.
    JobError : the store failed.
    """
    base = _key(path).rstrip("/")
    try:
        with asking(path) as store:
            single = store.isfile(base)  # some stores list no object below itself
            found = {base: store.info(base)} if single else store.find(base, detail=True)
        sizes = {str(key): int(info.get("size") or 0) for key, info in found.items()}
    except FileNotFoundError:
        sizes = {}
    if not sizes:
        raise MissingFile(f"there is nothing at {path}; check the address")
    free, needed = shutil.disk_usage(target.parent).free, sum(sizes.values())
    if needed > free:
        raise BadInput(
            f"{path} has {needed >> 20} MiB, and {target.parent} has {free >> 20} MiB free; set TMPDIR to a"
            " folder on a larger disk"
        )

    def get(key: str) -> None:
        rest = PurePosixPath(key.removeprefix(base).lstrip("/"))
        if ".." in rest.parts:
            raise BadInput(f"{path}: the name of its object {key} leads elsewhere")
        file = target / rest
        file.parent.mkdir(parents=True, exist_ok=True)
        with asking(path) as store:
            store.get_file(key, os.fspath(file))

    side_by_side(path, get, sizes)


def is_same_tree(folder: Path, path: Path) -> bool:
    """Whether the objects below ``path`` are the files in a folder of this machine, equal to the byte."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    with asking(path) as store:
        base = f"{_key(path).rstrip('/')}/"
        sizes = {key.partition(base)[2]: info["size"] for key, info in store.find(base, detail=True).items()}
    if sizes != {name: file.stat().st_size for name, file in files.items()}:
        return False
    return all(_is_same(file, path / name) for name, file in files.items())


def _is_same(file: Path, path: Path) -> bool:
    """Whether an object is equal to a file of the same size."""
    with file.open("rb") as content:
        while piece := content.read(COMPARED_BYTES):
            if read_at(path, content.tell() - len(piece), len(piece)) != piece:
                return False
    return True


def size_of(path: Path) -> int:
    """The size of a file or object in bytes. Raises FileNotFoundError if it does not exist."""
    if not is_remote(path):
        return path.stat().st_size
    with asking(path) as store:
        return int(store.info(_key(path))["size"])


def state_of(path: Path) -> Any:
    """A value that is another once a file or object has been replaced or written; None if it does not
    exist."""
    try:
        if is_remote(path):
            with asking(path) as store:
                return store.ukey(_key(path))
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
    except FileNotFoundError:
        return None


def read_at(path: Path, start: int, size: int) -> bytes:
    """The ``size`` bytes of a file or object from byte ``start`` on; fewer if it ends before.

    Raises FileNotFoundError if it does not exist.
    """
    if is_remote(path):
        with asking(path) as store:
            return store.cat_file(_key(path), start=start, end=start + size) if size else b""
    descriptor = open_regular(path)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def read_file(path: Path) -> bytes:
    """The content of a file of a job, or of an object.

    Raises
    ------
    FileNotFoundError : it does not exist.
    DamagedFile : there is something else than a regular file.
    """
    if is_remote(path):
        with asking(path) as store:
            return store.cat_file(_key(path))
    with open_file(path) as file:
        return file.read()


def open_file(path: Path) -> BinaryIO:
    """A file of a job, or an object, open for reading; the errors are those of `read_file`."""
    if is_remote(path):
        return cast(BinaryIO, path.open("rb"))
    return os.fdopen(open_regular(path), "rb")


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a regular file in a folder that others may write to.

    A symbolic link that somebody put in the place of the file is not followed, and nothing waits for the
    other end of a FIFO.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    DamagedFile : there is something else than a regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise
        raise DamagedFile(f"{path} is {_kind(path)} and no regular file; remove it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFile(f"{path} is {_kind(path)} and no regular file; remove it")
    return descriptor


def _kind(path: Path) -> str:
    """What lies at ``path``, in words."""
    if path.is_symlink():
        return "a symbolic link"
    return "a folder" if path.is_dir() else "a device or a FIFO"


@contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """A name of an existing file for libraries that take UTF-8 only, valid while the ``with`` block runs.

    It is ``path`` itself, unless ``path`` is not UTF-8, as Linux allows, or ends in a bracket, which libvips
    takes for the end of options; then it is a name that the system gives to a descriptor. Raises OSError if
    the file cannot be opened.
    """
    try:
        os.fspath(path).encode()
        plain = not path.name.endswith("]")
    except UnicodeEncodeError:
        plain = False
    if not plain:
        with path.open("rb") as file:
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    yield path


def put(local: str | os.PathLike[str], path: Path) -> None:
    """Upload the file ``local`` as the object ``path``, which appears only when it is complete.

    Raises
    ------
    MissingFile : the bucket does not exist.
    JobError : the store failed.
    """
    with asking(path) as store, _into_a_bucket(path):
        store.put_file(os.fspath(local), _key(path))


def create(path: Path, content: bytes) -> bool:
    """Create the object ``path`` unless it exists, in one atomic step. Returns whether it was created.

    Raises
    ------
    MissingFile : the bucket does not exist.
    JobError : the store failed.
    """
    with asking(path) as store, _into_a_bucket(path):
        try:
            store.pipe_file(_key(path), content, mode="create")
        except FileExistsError:
            return False
    return True


@contextmanager
def _into_a_bucket(path: Path) -> Iterator[None]:
    """Report FileNotFoundError as MissingFile: while an object is created, only its bucket can be missing."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFile(f"there is no bucket for {path} ({error}); make it first") from None


def remove(path: Path) -> None:
    """Delete a file or object, or a folder with everything in it; do nothing if it does not exist."""
    if is_remote(path):
        with asking(path) as store, suppress(FileNotFoundError):
            store.rm(_key(path), recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Delete the objects with these names, relative to ``folder``, on an object store; those that exist.

    Some stores have folders: those below ``folder`` that are empty then are deleted, too.
    """
    with asking(folder) as store:
        base = f"{_key(folder).rstrip('/')}/"
        try:
            there = {key.partition(base)[2] or key: key for key in store.find(_key(folder))}
        except FileNotFoundError:
            return
        gone = [name for name in names if name in there]
        if gone:
            store.rm([there[name] for name in gone])
        folders = {str(parent) for name in gone for parent in PurePosixPath(name).parents} - {"."}
        for name in sorted(folders, key=lambda name: -name.count("/")):
            with suppress(Exception):  # most stores have no folders
                store.rmdir(base + name)


def fetched(path: Path) -> Path:
    """``path`` if it lies on a file system, else the path of a copy of the object on this machine.

    A process copies each version of an object once, and deletes its copies when it ends. Raises
    FileNotFoundError if the object does not exist.
    """
    if not is_remote(path):
        return path
    with asking(path) as store, _fetching:
        return _copied(path, store.ukey(_key(path)))


_fetching = threading.Lock()


@cache
def _copied(path: Path, version: str) -> Path:
    """Download an object; ``version`` is the store's key for its present content."""
    target = _scratch() / f"{version[:32]}-{path.name}"
    with asking(path) as store:
        store.get_file(_key(path), os.fspath(target))
    return target


#: How the names of folders with copies begin.
_COPIES = "urst-tiles-copies-"


def remove_dead_copies() -> None:
    """Remove the copies of objects that killed processes left on this machine."""
    place = Path(tempfile.gettempdir())
    for name in names_in(place):
        if name.startswith(_COPIES):
            _remove_if_dead(place / name)


@cache
def _scratch() -> Path:
    """A temporary folder of this process, which holds its lock and deletes it in the end."""
    remove_dead_copies()
    place = Path(tempfile.gettempdir())
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_COPIES, dir=place))
        if lock_folder(folder) is not None and folder.is_dir():  # else another process took it for a dead one
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder


def lock_folder(folder: Path) -> int | None:
    """A descriptor of a folder that holds its lock; None if another process has it, or the folder is gone;
    -1 on a file system without locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _remove_if_dead(folder: Path) -> None:
    """Remove a folder of copies if no process holds its lock."""
    descriptor = lock_folder(folder)
    if descriptor is not None and descriptor >= 0:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def side_by_side(path: Path, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call ``function`` for each item and return the results in the order of the items.

    If ``path`` lies on an object store, up to ``REQUESTS`` calls run at the same time, since each mostly
    waits.
    """
    if not is_remote(path):
        return [function(item) for item in items]
    with ThreadPoolExecutor(REQUESTS, "requests") as pool:
        return list(pool.map(function, items))


def _key(path: Path) -> str:
    """The name by which the store knows an object, without the protocol."""
    return path.path  # type: ignore[attr-defined]
