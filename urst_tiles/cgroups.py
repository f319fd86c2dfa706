"""The limits that Linux control groups set to this process, on memory and on processor time.

A job of SLURM, a unit of systemd or a container lies several groups deep, and each group on the way to the
root limits those below it. Version 2 has one tree of groups, version 1 one for each controller; a machine may
have both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")

#: Files with a number of bytes, in version 2 and in version 1. Above ``memory.high`` a process is not killed,
#: but all but stopped.
MEMORY = ("memory.max", "memory.high", "memory.limit_in_bytes")


def memory_limit(process: Path = PROCESS) -> int | None:
    """The least bytes of memory that a group of this process may take; None without a limit.

    ``process`` is the folder of the process in /proc.
    """
    limits = (_number(group / name) for group in groups("memory", process) for name in MEMORY)
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_limit(process: Path = PROCESS) -> int | None:
    """The least number of processors, rounded up, that a group of this process may use; None without a
    limit."""
    limits = (_processors(group) for group in groups("cpu", process))
    return min((max(1, math.ceil(limit)) for limit in limits if limit is not None), default=None)


def groups(controller: str, process: Path = PROCESS) -> Iterator[Path]:
    """The folders of the groups of this process that have ``controller``, each followed by its ancestors."""
    paths = dict(_paths(process, controller))
    for kind, root, mount in _mounts(process, controller):
        path = paths.get(kind)
        if path is None:
            continue
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        group = mount / inside
        if ".." in inside.parts or not group.is_dir():
            group = mount  # the group is outside of what this process can see
        yield group
        yield from (above for above in group.parents if above.is_relative_to(mount))


def _paths(process: Path, controller: str) -> Iterator[tuple[str, str]]:
    """(version, path below the root of the groups) of the process, for each version that it has."""
    with suppress(OSError):
        for line in (process / "cgroup").read_text(errors="surrogateescape").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield "cgroup2", path
            elif controller in controllers.split(","):
                yield "cgroup", path


def _mounts(process: Path, controller: str) -> Iterator[tuple[str, str, Path]]:
    """(version, root, mount point) of each tree of groups; ``root`` is the group at the mount point."""
    with suppress(OSError):
        for line in (process / "mountinfo").read_text(errors="surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            words, kind = before.split(), after.split()
            if len(words) < 5 or len(kind) < 3:
                continue
            if kind[0] == "cgroup2" or (kind[0] == "cgroup" and controller in kind[2].split(",")):
                yield kind[0], _unescaped(words[3]), Path(_unescaped(words[4]))


def _unescaped(text: str) -> str:
    """A path of mountinfo, which writes spaces and the like as octal numbers."""
    for sign in " \t\n\\":
        text = text.replace(f"\\{ord(sign):03o}", sign)
    return text


def _words(path: Path) -> list[str]:
    """The words of a file; none if it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").split()
    return []


def _number(path: Path) -> int | None:
    """The number above 0 in a file; None for anything else, as "max"."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() and int(words[0]) > 0 else None


def _processors(group: Path) -> float | None:
    """Quota over period of a group; None without a quota."""
    words = _words(group / "cpu.max") or [
        *_words(group / "cpu.cfs_quota_us"),
        *_words(group / "cpu.cfs_period_us"),
    ]
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        return None
    return int(words[0]) / int(words[1])
