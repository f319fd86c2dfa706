"""What is kept in memory, within a limit: the values that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by key, of which those that were not used for longest go first; threads may share it.

    Parameters
    ----------
    limit : how much all values together may weigh.
    weigh : the weight of a value, such as its bytes.
    """

    def __init__(self, limit: float, weigh: Callable[[V], float] = lambda value: 1) -> None:
        self.limit, self._weigh = limit, weigh
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()
        self.weight = 0.0

    def get(self, key: Hashable) -> V | None:
        """The value of a key; None if it is not kept (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: V) -> V:
        """Keep a value; what exceeds the limit is forgotten, also the value itself. Returns the value."""
        with self._lock:
            if key in self._values:
                self.weight -= self._weigh(self._values.pop(key))
            self._values[key] = value
            self.weight += self._weigh(value)
            while self.weight > self.limit:
                self.weight -= self._weigh(self._values.popitem(last=False)[1])
        return value

    def made(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of a key, which ``make`` makes if it is not kept. Two threads may both make it."""
        value = self.get(key)
        return self.put(key, make()) if value is None else value
