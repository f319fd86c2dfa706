"""What happens to a run, from inside its process: at a moment or at a call of the system after the beginning
of a phase."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

#: Calls of the system that change what lies on the disk.
CALLS = ("fsync", "rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir")

PHASES = (
    "planning", "spooling", "thumbnail", "statistics", "blocks", "assembling", "publishing", "cleaning up",
)  # fmt: skip


def at_phases(begin: Callable[[str], None]) -> None:
    """Call ``begin`` with the name of each phase when it begins, in this process from now on."""
    from urst_tiles.engine.block import StylizeBlock
    from urst_tiles.job.folder import Job

    modules = ("api.shards", "api.stylize", "pyramid.assemble", "source.thumbnail")
    shards, stylize, assemble, thumbnail = (import_module(f"urst_tiles.{name}") for name in modules)

    places: list[tuple[str, Any, str]] = [
        ("planning", stylize, "open_job"), ("planning", shards, "open_job"),
        ("spooling", stylize, "prepare"), ("spooling", shards, "prepare"),
        ("thumbnail", thumbnail, "average"),
        ("statistics", stylize, "set_up"), ("statistics", shards, "set_up"),
        ("blocks", StylizeBlock, "__call__"),
        ("assembling", stylize, "finish"), ("assembling", shards, "finish"),
        ("publishing", assemble, "_verify"),
        ("cleaning up", Job, "remove"),
    ]  # fmt: skip
    seen = set[str]()

    def wrapped(phase: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(real)
        def call(*arguments: Any, **named: Any) -> Any:
            if phase not in seen:
                seen.add(phase)
                begin(phase)
            return real(*arguments, **named)

        return call

    for phase, owner, name in places:
        setattr(owner, name, wrapped(phase, getattr(owner, name)))


def note_times(log: Path) -> Callable[[], None]:
    """Write down when each phase begins, and how many calls of `CALLS` came before."""

    def install() -> None:
        count = [0]
        start = time.monotonic()

        def note(phase: str) -> None:
            with log.open("a") as file:
                file.write(f"{phase}\t{time.monotonic() - start}\t{count[0]}\n")

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                count[0] += 1
                return real(*arguments, **named)

            return call

        _patch(counted)
        at_phases(note)
        from urst_tiles import cli

        real_end = cli.forget_marks
        cli.forget_marks = lambda: (note("the end"), real_end())[1]

    return install


def later(phase: str, seconds: float, act: Callable[[], None]) -> Callable[[], None]:
    """Act so many seconds after the beginning of the phase."""

    def wait_and_act() -> None:
        time.sleep(seconds)
        act()

    def begin(now: str) -> None:
        if now == phase:
            threading.Thread(target=wait_and_act, daemon=True).start()

    return lambda: at_phases(begin)


def signalled(phase: str, seconds: float, number: int) -> Callable[[], None]:
    """Get a signal so many seconds after the beginning of the phase."""
    return later(phase, seconds, lambda: os.kill(os.getpid(), number))


def at_call(phase: str, n: int, act: Callable[[], None], *, before: bool) -> Callable[[], None]:
    """Act at the n-th call of `CALLS` after the beginning of the phase, before or after the call is made."""

    def install() -> None:
        calls = [-(1 << 60)]
        at_phases(lambda now: calls.__setitem__(0, 0) if now == phase else None)

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                calls[0] += 1
                mine = calls[0] == n
                if mine and before:
                    act()
                result = real(*arguments, **named)
                if mine and not before:
                    act()
                return result

            return call

        _patch(counted)

    return install


def broken_disk(phase: str, n: int, code: int, *, once: bool) -> Callable[[], None]:
    """The n-th of the calls that write, after the beginning of the phase, fails; or all from it on."""

    def install() -> None:
        calls = [-(1 << 60)]
        at_phases(lambda now: calls.__setitem__(0, 0) if now == phase else None)

        def failing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                calls[0] += 1
                if calls[0] == n or (calls[0] > n and not once):
                    named_in = arguments[:1] if real.__name__ != "fsync" else ()  # as the system does
                    raise OSError(code, os.strerror(code), *map(os.fspath, named_in))
                return real(*arguments, **named)

            return call

        _patch(failing, ("fsync", "rename", "replace", "link", "mkdir"))

    return install


def full_disk(phase: str, seconds: float, disk: Path) -> Callable[[], None]:
    """Another program takes all room on the disk, and takes it again whenever there is some."""

    def fill() -> None:
        handle = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        while True:
            try:
                os.write(handle, bytes(1 << 16))
            except OSError:
                with suppress(OSError):
                    os.write(handle, bytes(512))
                time.sleep(0.001)

    return later(phase, seconds, fill)


def jumping_clock(phase: str, seconds: float, by: float) -> Callable[[], None]:
    """The clock jumps when the phase begins, and the process is killed later."""
    install_kill = signalled(phase, seconds, signal.SIGKILL)

    def install() -> None:
        install_kill()
        real, jump = time.time, [0.0]
        at_phases(lambda now: jump.__setitem__(0, by) if now == phase else None)
        time.time = lambda: real() + jump[0]

    return install


def power_cut(phase: str, seconds: float, log: Path) -> Callable[[], None]:
    """Killed, with a log of what was synchronised to the disk by then (for `lose_what_was_not_synced`)."""
    install_kill = signalled(phase, seconds, signal.SIGKILL)

    def install() -> None:
        install_kill()
        handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        sync, link = os.fsync, os.link

        def synced(descriptor: Any) -> None:
            sync(descriptor)
            state = os.fstat(descriptor)
            os.write(handle, f"S\t{state.st_ino}\t{state.st_size}\n".encode())

        count = itertools.count()

        def replaced(target: str) -> str:
            """Another name of the file that is about to be replaced, for a rename that is lost."""
            other = f"{log}.{os.getpid()}.{next(count)}"
            try:
                link(target, other)
            except FileNotFoundError:
                return ""
            return other

        def named(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(source: Any, target: Any, **more: Any) -> Any:
                before = replaced(os.fspath(target))
                result = real(source, target, **more)
                folder = os.stat(os.path.dirname(os.fspath(target))).st_ino
                line = f"N\t{folder}\t{os.fspath(source)}\t{os.fspath(target)}\t{before}\n"
                os.write(handle, line.encode())
                return result

            return call

        os.fsync = synced
        _patch(named, ("rename", "replace", "link"))

    return install


def lose_what_was_not_synced(log: Path, folder: Path, random: np.random.Generator) -> int:
    """Do to the files in ``folder`` what a power cut may do; returns how many files lost something."""
    sizes, names, lost = dict[int, int](), dict[str, tuple[int, str, str]](), 0
    for line in log.read_text().splitlines() if log.exists() else []:
        kind, *words = line.split("\t")
        if kind == "S":
            sizes[int(words[0])] = int(words[1])
            names = {target: one for target, one in names.items() if one[0] != int(words[0])}
        else:
            names[words[2]] = (int(words[0]), words[1], words[3])
    for target, (_, source, before) in names.items():
        if random.random() < 0.5 and os.path.exists(target) and not os.path.exists(source):
            os.rename(target, source)
            if before:  # a rename that replaces is done or not done, and no name is lost in between
                os.rename(before, target)
            lost += 1
    for other in log.parent.glob(f"{log.name}.*"):
        other.unlink()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            state = path.stat()
            kept = sizes.get(state.st_ino, 0)
            if state.st_size > kept:
                if random.random() < 0.5:
                    os.truncate(path, kept)
                else:
                    with path.open("r+b") as file:
                        file.seek(kept)
                        file.write(bytes(state.st_size - kept))
                lost += 1
    return lost


def _patch(
    change: Callable[[Callable[..., Any]], Callable[..., Any]], names: tuple[str, ...] = CALLS
) -> None:
    for name in names:
        setattr(os, name, change(getattr(os, name)))


NO_ROOM, NO_IO = errno.ENOSPC, errno.EIO
