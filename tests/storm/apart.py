"""Many small files read in a process apart: whatever a file does to it, the next one is read."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tally import BROKEN
from warm import fork

#: What a small file may take: seconds of processor time, and bytes of memory.
MOST_SECONDS, MOST_BYTES = 20.0, 600 << 20

#: Seconds of wall time after which a file counts as one that hangs.
HANG_SECONDS = 120

#: A process reads so many files, then another takes over.
EACH = 250

Outcome = tuple[str, str]


def outcomes(use: Callable[[int], str], numbers: Iterable[int], log: Path) -> Iterator[tuple[int, Outcome]]:
    """What became of each number, in a few processes one after the other; ``use`` says it."""
    waiting = iter(numbers)
    while batch := [number for number, _ in zip(waiting, range(EACH), strict=False)]:
        while batch:
            done = 0
            for number, outcome in zip(batch, _child(use, batch, log), strict=False):
                yield number, outcome
                done += 1
            batch = batch[done:]


def _child(use: Callable[[int], str], batch: list[int], log: Path) -> Iterator[Outcome]:
    """The outcomes of the first numbers of the batch; of the one that killed the process too."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(reading)
        _work(use, batch, writing, log)
    os.close(writing)
    count = 0
    with os.fdopen(reading) as lines:
        for line in lines:
            count += 1
            outcome = json.loads(line)
            yield outcome[0], outcome[1]
    _, status = os.waitpid(pid, 0)
    if count < len(batch):
        code = os.waitstatus_to_exitcode(status)
        what = "it hangs" if code == -signal.SIGALRM else f"the process died ({code})"
        yield f"{BROKEN}: {what}", log.read_text(errors="replace")[-3000:]


def _work(use: Callable[[int], str], batch: list[int], writing: int, log: Path) -> None:
    """Be the child."""
    try:
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in batch:
            signal.alarm(HANG_SECONDS)
            line = json.dumps(_judged(use, number)) + "\n"
            os.write(writing, line.encode())
    finally:
        os._exit(0)


def _judged(use: Callable[[int], str], number: int) -> Outcome:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        outcome, details = use(number), ""
    except BaseException as error:
        outcome, details = f"{BROKEN}: {type(error).__name__}", traceback.format_exc()[-3000:]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    seconds = time.process_time() - start
    if grown > MOST_BYTES or seconds > MOST_SECONDS:
        return f"{BROKEN}: too much", f"{grown >> 20} MiB more and {seconds:.1f} s; {outcome} {details}"
    return outcome, details


def one_sentence(error: BaseException, *names: str) -> None:
    """Fail unless an error is one sentence that names a file."""
    text = str(error)
    assert any(name in text for name in names), f"does not name {names}: {text}"
    assert "\n" not in text and len(text) < 600, f"is not one sentence: {text}"
