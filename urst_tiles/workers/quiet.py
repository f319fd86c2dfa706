"""dask's scheduler and worker without the web server that each of them opens, in folders of this user alone.

The servers show the state of a cluster to whoever reaches their port, and know neither keys nor passwords.
A module of its own, since importing distributed takes time, and since the worker of a job queue is named on a
command line.
"""

from __future__ import annotations

from typing import Any

from distributed import Scheduler, Worker

from urst_tiles.workers.scratch import private_scratch


class QuietScheduler(Scheduler):
    """A scheduler that serves no web pages."""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Open nothing, where dask would listen on a port."""


class QuietWorker(Worker):
    """A worker that serves no web pages. Its temporary folder is private also where a job queue starts it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        with private_scratch():
            super().__init__(*args, **options)

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Open nothing, where dask would listen on a port."""
