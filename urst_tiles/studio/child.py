"""``python -m urst_tiles.studio.child ARGS``: the command ``urst-tiles ARGS``, which ends with its parent.

The parent holds the other end of its stdin. When the parent ends, however it does, stdin ends, and the
command is interrupted as by Ctrl-C: a job keeps its finished blocks.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def watch() -> None:
    """Interrupt this process when its stdin ends."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    runpy.run_module("urst_tiles", run_name="__main__", alter_sys=True)
