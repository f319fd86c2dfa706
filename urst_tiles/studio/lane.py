"""Work that is done in turn, the newest first, and not at all once nobody waits for it."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

#: The future of the call that a thread makes.
_now = threading.local()


class Dropped(Exception):
    """Nobody waits any more for what a thread makes."""


def check_wanted() -> None:
    """Raise `Dropped` in a call of a lane for which nobody waits any more."""
    future = getattr(_now, "future", None)
    if future is not None and getattr(future, "is_dropped", False):
        raise Dropped


class Lane:
    """Some threads that take the most urgent of the waiting calls, and of equally urgent ones the newest.

    Calls of no urgency are made in their order.

    A view that moves asks for ever new tiles: what was asked for last is what is looked at. A call whose
    future is cancelled before its turn is never made.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._waiting: list[tuple[int, int, Future[Any], Callable[[], Any]]] = []  # a heap
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T], urgency: int = 0) -> Future[T]:
        """Have ``call`` made; a higher ``urgency`` goes first."""
        future: Future[T] = Future()
        with self._changed:
            number = next(self._numbers)
            heapq.heappush(self._waiting, (-urgency, -number if urgency else number, future, call))
            self._changed.notify()
        return future

    def drop(self, future: Future[Any]) -> bool:
        """Say that nobody waits for a call: it is never made, or ends where it next looks (`check_wanted`).

        Returns whether it is never made.
        """
        future.is_dropped = True  # type: ignore[attr-defined]
        return future.cancel()

    def close(self) -> None:
        """Make no further calls, and wait for those that are being made."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            while self._open and not self._waiting:
                self._changed.wait()
            if not self._open:
                for _, _, future, _ in self._waiting:
                    future.cancel()
                return None
            _, _, future, call = heapq.heappop(self._waiting)
            return future, call

    def _work(self) -> None:
        while (work := self._next()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            _now.future = future
            try:
                future.set_result(call())
            except BaseException as error:  # whoever waits is told
                future.set_exception(error)
            _now.future = None
            del work, future, call
