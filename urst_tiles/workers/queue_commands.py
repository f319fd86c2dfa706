"""How job queues are spoken to: what became of jobs, no more of them, and why one was refused.

Commands and their answers are those of the manuals of SLURM (squeue, scancel), OpenPBS and Torque (qstat,
qdel) and LSF (bjobs, bkill).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

#: How long a queue may take to answer.
ANSWER_SECONDS = 60.0

#: How long it may take to cancel jobs.
CANCEL_SECONDS = 20.0

#: How a queue says that a job it is asked for has ended.
UNKNOWN = re.compile(r"invalid job id|unknown job|has finished|is not found|no unfinished job", re.IGNORECASE)

#: States of a job that ended, of PBS and of LSF; squeue lists only what has not.
ENDED = {"C", "E", "F", "X", "DONE", "EXIT"}


@dataclass(frozen=True)
class Commands:
    """The programs of one kind of job queue.

    Attributes
    ----------
    cluster : dask-jobqueue's class.
    submit, delete : programs; ``delete`` takes jobs' numbers.
    ask : the command that lists jobs, to be followed by their numbers; with ``joined``, by all as one word.
    """

    cluster: str
    submit: str
    delete: str
    ask: tuple[str, ...]
    joined: bool = False

    def asking(self, numbers: Sequence[str]) -> list[str]:
        """The command that tells what became of these jobs."""
        if self.joined:
            return [*self.ask[:-1], self.ask[-1] + ",".join(numbers)]
        return [*self.ask, *numbers]

    def listed(self, numbers: Sequence[str]) -> set[str] | None:
        """Those of the jobs that wait or run; None where the queue gives no answer."""
        command = self.asking(numbers)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode and not UNKNOWN.search(done.stderr):
            return None
        return listing(done.stdout)

    def cancel(self, numbers: Sequence[str]) -> None:
        """Cancel these jobs, in a session of its own: a second Ctrl-C is not for that."""
        quiet = subprocess.DEVNULL
        asked = subprocess.Popen([self.delete, *numbers], start_new_session=True, stdout=quiet, stderr=quiet)
        with suppress(subprocess.TimeoutExpired):
            asked.wait(CANCEL_SECONDS)


SQUEUE = ("squeue", "--noheader", "--format=%A %t", "--jobs=")

COMMANDS = {
    "slurm": Commands("SLURMCluster", "sbatch", "scancel", SQUEUE, joined=True),
    "pbs": Commands("PBSCluster", "qsub", "qdel", ("qstat",)),
    "lsf": Commands("LSFCluster", "bsub", "bkill", ("bjobs", "-noheader", "-o", "jobid stat")),
}


def listing(text: str) -> set[str]:
    """Numbers of the jobs that a queue lists and that have not ended."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        number = re.match(r"\d+", line.strip())
        if number and not ENDED & {*words[1:2], *words[-2:-1]}:  # qstat has a name, a user, a time before
            found.add(number[0])
    return found


def reason(error: Exception) -> str:
    """The last line of what the submitting program said, as dask-jobqueue's error quotes it."""
    said = re.split(r"^(?:stdout|stderr|Submission command output is):", str(error), flags=re.MULTILINE)[1:]
    lines = [line.strip() for line in "\n".join(said).splitlines() if line.strip()]
    return lines[-1] if lines else "without a reason"
