"""The list of the files that a job wrote into its folder: nothing else in the folder is ever removed.

A name is put on the list before its file is written, so that a process that is killed leaves no file that the
list does not have. The list, ``written.json``, also tells the folder of a job from a folder of the user.

written.json
  written   the names of the files, relative to the folder; one that ends in "/" is a folder with all in it
  made      whether the folder itself was made by the job
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISDIR

from urst_tiles.storage.publish import is_attempt, publish
from urst_tiles.storage.stores import is_remote, read_file, remove_files

#: The name of the list.
LIST = "written.json"

#: Files that jobs write and that `Written` does not remove; what killed processes left of them it does.
ALWAYS = ("job.json", LIST, "lock", "request.json")

#: The temporary name of a file or folder (of the package's own making) that a killed process left behind.
ATTEMPT = re.compile(r"\.(?P<name>.+)\.([0-9a-f]{20}\.tmp|\d+\.[0-9a-f]{8})")


class Written:
    """The list of the files in ``folder`` that a job wrote.

    Only a process that holds the folder exclusively changes the list.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.path = folder, folder / LIST
        self._names: set[str] = set()
        self._made = False

    def start(self, made: bool) -> None:
        """Begin an empty list; ``made`` is whether the folder itself was made by the job."""
        self._names, self._made = set(), made
        self._publish()

    def add(self, paths: Iterable[Path]) -> None:
        """Put files on the list, before they are written."""
        self.read()
        new = {self._relative(path) for path in paths} - self._names
        if new:
            self._names |= new
            self._publish()

    def add_folder(self, path: Path) -> None:
        """Put a folder on the list, with everything that will be in it."""
        self.read()
        self._names.add(f"{self._relative(path)}/")
        self._publish()

    def has_folder(self, path: Path) -> bool:
        """Whether a folder is on the list, with everything in it."""
        return f"{self._relative(path)}/" in self._names

    def read(self) -> bool:
        """Take over what the list in the folder says; returns whether there is a list that can be read."""
        try:
            values = json.loads(read_file(self.path))
            names, made = values["written"], values["made"]
            good = isinstance(names, list) and all(map(_is_inside, names))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
        if good:
            self._names |= set(names)
            self._made |= made is True
        return good

    @property
    def made(self) -> bool:
        """Whether the folder itself was made by the job, as far as the list is known."""
        return self._made

    def remove_files(self, keep: Path | None = None) -> bool:
        """Remove the files on the list, the folders that are empty then, and what killed processes left.

        The list itself stays, and so do ``job.json`` and the lock. ``keep`` stays too, for the caller to
        remove; returns whether it is on the list.
        """
        self.read()
        kept = {self._relative(keep)} & self._names if keep else set[str]()
        if is_remote(self._folder):
            remove_files(self._folder, self._names - kept)
        else:
            self._remove_here(sorted(self._names - kept))
        return bool(kept)

    def _remove_here(self, names: list[str]) -> None:
        """Remove files from a folder on a file system, as `remove_files`."""
        folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        real = {name for name in folders | {"."} if self._is_real(name)}
        for name in names:
            if str(PurePosixPath(name).parent) in real:
                _remove(self._folder / name, whole=name.endswith("/"))
        known = {name.rstrip("/") for name in names} | folders | set(ALWAYS)
        for name in sorted(real, key=lambda name: -name.count("/")):
            self._remove_attempts(name, known)
        for name in sorted(real - {"."}, key=lambda name: -name.count("/")):
            with suppress(OSError):
                (self._folder / name).rmdir()

    def _remove_attempts(self, folder: str, known: set[str]) -> None:
        """Remove the temporary files in a folder whose final names are known to be the job's."""
        for entry in os.listdir(self._folder / folder):
            match = ATTEMPT.fullmatch(entry)
            if match is None or (entry.endswith(".tmp") and not is_attempt(entry)):
                continue
            if str(PurePosixPath(folder, match["name"])) in known:
                _remove(self._folder / folder / entry, whole=True)

    def _is_real(self, name: str) -> bool:
        """Whether a name in the folder is a folder, and none of its parents is a symbolic link."""
        path = self._folder
        for part in PurePosixPath(name).parts:
            path = path / part
            try:
                if not S_ISDIR(path.lstat().st_mode):
                    return False
            except OSError:
                return False
        return path.is_dir()

    def _relative(self, path: Path) -> str:
        return str(path).removeprefix(f"{str(self._folder).rstrip('/')}/")

    def _publish(self) -> None:
        values = {"made": self._made, "written": sorted(self._names)}
        publish(self.path, json.dumps(values, indent=0).encode())


def _is_inside(name: object) -> bool:
    """Whether a name on the list leads to a file inside the folder."""
    parts = name.rstrip("/").split("/") if isinstance(name, str) else ()
    return bool(parts) and not {"", ".", ".."} & set(parts) and "\0" not in str(name)


def _remove(path: Path, whole: bool) -> None:
    """Remove a file if it is there; with ``whole`` also a folder with everything in it. Links are not
    followed."""
    with suppress(OSError):
        if whole and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
