"""What worker processes that are ended leave in the system goes without a word."""

import subprocess
import sys

import pytest

LEAVE_A_SEMAPHORE = """
import multiprocessing, os
from urst_tiles.workers.interrupt import loop_for_processes

with loop_for_processes():
    lock = multiprocessing.get_context("spawn").Lock()
    print(os.environ.get("PYTHONWARNINGS"), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("warnings", [None, "default"])
def test_what_ended_processes_leave_is_removed_in_silence(warnings, monkeypatch):
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    if warnings:
        monkeypatch.setenv("PYTHONWARNINGS", warnings)
    command = [sys.executable, "-c", LEAVE_A_SEMAPHORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(warnings), "the user's own setting came back"
