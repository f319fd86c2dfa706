"""The paintings that are to be made, one after the other, each by the command that a terminal would run.

They outlive the page and the studio: what is not finished stands in a file in the root, from which a studio
that is opened there later goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from urst_tiles.api.blocks import blocks_of
from urst_tiles.errors import BadInput, UrstError
from urst_tiles.machine import HUGE_PAGES
from urst_tiles.storage.publish import publish, remove_dead_attempts
from urst_tiles.studio.asked import inside_to_write, relative
from urst_tiles.studio.command import parsed

#: The file of the queue, in the root. It is there only while something is not finished.
FILE = ".urst-tiles-studio.json"

#: How many seconds a job has to stop before it is killed.
STOP_SECONDS = 20

#: The exit statuses of a command that was interrupted; the second before it could do anything about it.
STOPPED = (130, -signal.SIGTERM)

#: The most paintings in a queue, and the most bytes of its file.
MOST, MOST_BYTES = 1000, 4 << 20

State = Literal["waiting", "running", "paused", "done", "failed"]

#: What has not been finished.
OPEN = ("waiting", "running", "paused")


@dataclass(frozen=True)
class Painting:
    """A painting of the queue.

    Attributes
    ----------
    number : by which it is called.
    image : what is painted, as looks call it.
    after : the state of the look that shows the same, see `Asked.state`; empty if it is not known.
    output : the file to write, relative to the root.
    words : the arguments of the command ``urst-tiles``.
    state : what has become of it.
    stage, done, total : how far the job is.
    message : why it failed.
    """

    number: int
    image: str
    after: str
    output: str
    words: tuple[str, ...]
    state: State = "waiting"
    stage: str = ""
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """All that a page must know of it."""
        return {name: value for name, value in asdict(self).items() if name != "words"}


class Queue:
    """Paintings in the order in which they are made.

    Parameters
    ----------
    root : the folder in which the commands run.

    Attributes
    ----------
    held : whether no painting is begun, since the user paused the queue or it was taken over from an earlier
        studio.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._paintings: list[Painting] = []
        self._process: subprocess.Popen[str] | None = None
        self._owner: int | None = None
        self._stopping = self._closed = False
        self._numbers = 0
        self.held = False
        self._take_over()

    # What is asked and told

    @property
    def state(self) -> dict[str, Any]:
        """The paintings in their order, each with how many ``blocks`` of it are finished while it is not, and
        whether the queue is held."""
        with self._lock:
            held, paintings = self.held, list(self._paintings)
        return {"held": held, "jobs": [one.facts | {"blocks": self._blocks(one)[0]} for one in paintings]}

    def _blocks(self, one: Painting) -> tuple[int, int]:
        """How many blocks of a painting are finished, and how many there are; 0 if that is not known."""
        if one.state in ("running", "paused"):
            with contextlib.suppress(UrstError, OSError):
                if found := blocks_of(self._root / one.output):
                    return len(found.names), found.total
        return 0, 0

    @property
    def paintings(self) -> list[Painting]:
        """The paintings in their order."""
        with self._lock:
            return list(self._paintings)

    def get(self, number: int) -> Painting:
        """A painting by its number. Raises BadInput if there is none."""
        with self._lock:
            return self._paintings[self._place(number)]

    def add(self, output: Path, words: Sequence[str], *, image: str, after: str = "") -> Painting:
        """Add a painting at the end, and begin it if nothing else runs.

        Parameters
        ----------
        output : the path of the file to write, below the root.
        words : the arguments of the command that writes it.
        image, after : as in `Painting`.

        Raises
        ------
        BadInput : the output exists, another painting of the queue writes it, the queue is full, or the words
            are no command of the studio.
        """
        if output.exists():
            raise BadInput(f"{relative(self._root, output)} exists; choose another name")
        parsed(self._root, words)
        with self._lock:
            written = relative(self._root, output)
            if any(one.output == written and one.state in OPEN for one in self._paintings):
                raise BadInput(f"{written} is in the queue already; choose another name")
            if len(self._paintings) >= MOST:
                raise BadInput(f"the queue holds {MOST} paintings; remove some")
            self._numbers += 1
            self._paintings = [one for one in self._paintings if one.output != written]
            added = Painting(self._numbers, image, after, written, tuple(words))
            self._paintings.append(added)
            self._go_on()
            return added

    def pause(self) -> None:
        """Stop the painting that is being made, whose finished blocks stay, and begin no other."""
        with self._lock:
            self.held = True
            self._stop()

    def resume(self) -> None:
        """Go on with what was paused, and then with the others."""
        with self._lock:
            self.held = False
            self._go_on()

    def remove(self, number: int) -> None:
        """Take a painting out; if it is being made it is stopped, and its finished blocks stay."""
        with self._lock:
            at = self._place(number)
            if self._paintings[at].state == "running":
                self._stop()
            del self._paintings[at]
            self._save()

    def move(self, number: int, by: int) -> None:
        """Move a painting that waits by so many places; never before one that runs or has ended."""
        with self._lock:
            at = self._place(number)
            one = self._paintings[at]
            movable = [k for k, other in enumerate(self._paintings) if other.state in ("waiting", "paused")]
            if at not in movable:
                raise BadInput(f"{one.output} does not wait; only what waits can be moved")
            to = movable[min(max(movable.index(at) + by, 0), len(movable) - 1)]
            self._paintings.insert(to, self._paintings.pop(at))
            self._save()

    def close(self) -> None:
        """Stop what runs and wait for its end; what is not finished is kept for the next studio."""
        with self._lock:
            self._closed = True
            process = self._process
            self._stop()
        if process is not None:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with self._lock:
            self._paintings = [
                replace(one, state="paused") if one.state == "running" else one for one in self._paintings
            ]
            self._save()
            if self._owner is not None:
                os.close(self._owner)
                self._owner = None

    # The commands

    def _place(self, number: int) -> int:
        for at, one in enumerate(self._paintings):
            if one.number == number:
                return at
        raise BadInput("there is no such painting in the queue")

    def _change(self, number: int, **changes: Any) -> None:
        """Change a painting that is still in the queue."""
        with contextlib.suppress(BadInput):
            at = self._place(number)
            self._paintings[at] = replace(self._paintings[at], **changes)

    def _go_on(self) -> None:
        """Begin the next painting if none is being made."""
        waiting = [one for one in self._paintings if one.state in ("waiting", "paused")]
        if waiting and not (self.held or self._closed or self._process):
            self._begin(waiting[0])
        self._save()

    def _begin(self, one: Painting) -> None:
        command = [sys.executable, "-P", "-m", "urst_tiles.studio.child"]  # -P: no modules of the root
        self._process = subprocess.Popen(
            [*command, *one.words, "--json"],
            cwd=self._root,
            env={name: value for name, value in os.environ.items() if name != HUGE_PAGES},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._stopping = False
        self._change(one.number, state="running", stage="", done=0, total=0, message="")
        threading.Thread(target=self._follow, args=(one.number, self._process), daemon=True).start()

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._stopping = True
            self._process.send_signal(signal.SIGTERM)

    def _follow(self, number: int, process: subprocess.Popen[str]) -> None:
        """Read what a command prints until it ends, and begin the next."""
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        said: list[str] = []
        stderr = process.stderr
        reading = threading.Thread(target=lambda: said.extend(list(stderr)[-20:]), daemon=True)
        reading.start()
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "progress":
                    with self._lock:
                        self._change(number, **{key: event[key] for key in ("stage", "done", "total")})
        status = process.wait()
        reading.join()
        for stream in (process.stdin, process.stdout, stderr):
            stream.close()
        last = said[-1].strip().removeprefix("urst-tiles: ") if said else ""
        with self._lock:
            if status in STOPPED:
                self._change(number, state="paused")
                self.held = self.held or not self._stopping  # somebody else stopped it
            else:
                self._change(number, state="failed" if status else "done", message=last if status else "")
            self._process = None
            self._go_on()

    # The file

    def _take_over(self) -> None:
        """Take over what an earlier studio in this root has not finished; it goes on when it is resumed."""
        path = self._root / FILE
        if not path.is_file() or path.is_symlink() or not self._own():
            return
        wrong = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, UrstError)
        with contextlib.suppress(*wrong):
            if path.stat().st_size <= MOST_BYTES:
                for one in json.loads(path.read_bytes())["jobs"][:MOST]:
                    with contextlib.suppress(*wrong):
                        self._restore(one)
        self.held = bool(self._paintings)

    def _restore(self, one: Any) -> None:
        """Add a painting as the file has it, unless it is finished or is none that the studio would make."""
        command = parsed(self._root, one["words"])
        output = inside_to_write(self._root, command.output)
        if output.exists() or not command.styles:
            return
        self._numbers += 1
        words, image, after = tuple(one["words"]), str(one.get("image", "")), str(one.get("after", ""))
        taken = Painting(self._numbers, image, after, relative(self._root, output), words, "paused")
        done, total = self._blocks(taken)
        self._paintings.append(replace(taken, stage="stylising" if done else "", done=done, total=total))

    def _own(self) -> bool:
        """Whether the queue of this root belongs to this studio, and to no other that is open."""
        if self._owner is not None:
            return True
        try:
            self._owner = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._owner is not None
            os.close(self._owner)
            self._owner = None
        except OSError:  # the root cannot be opened, or its file system has no locks
            pass
        return self._owner is not None

    def _save(self) -> None:
        """Write what is not finished into the file; without any, remove the file."""
        path = self._root / FILE
        left = [one for one in self._paintings if one.state in OPEN]
        if not (left or self._owner is not None) or not self._own():
            return
        with contextlib.suppress(OSError, UrstError):
            remove_dead_attempts(self._root, FILE)
            if not left:
                path.unlink(missing_ok=True)
                return
            jobs = [{"image": one.image, "after": one.after, "words": one.words} for one in left]
            publish(path, json.dumps({"jobs": jobs}, indent=1).encode())


#: What can be done to a painting of the queue, or without a number to all of it.
ACTIONS: dict[str, Callable[[Queue, int], None]] = {
    "pause": lambda queue, number: queue.pause(),
    "resume": lambda queue, number: queue.resume(),
    "remove": lambda queue, number: queue.remove(number),
    "up": lambda queue, number: queue.move(number, -1),
    "down": lambda queue, number: queue.move(number, 1),
}


def act(queue: Queue, words: dict[str, Any]) -> None:
    """Do what a page asks: ``do`` is a name of `ACTIONS`, ``number`` that of a painting.

    Raises
    ------
    BadInput : there is no such action or painting.
    """
    action, number = words.get("do"), words.get("number", 0)
    if not isinstance(action, str) or action not in ACTIONS:
        raise BadInput(f"the queue can {', '.join(ACTIONS)}, and not {str(action)[:40]!r}")
    if not isinstance(number, int):
        raise BadInput("a painting of the queue is called by its number")
    ACTIONS[action](queue, number)
