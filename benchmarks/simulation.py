"""Simulates a job on many machines, whose workers share processors, and one storage and one scheduler.

Time is continuous. Users of a resource share it evenly (processor sharing): whenever a user comes or goes,
the speed of all others changes. The life of a block is a generator that yields what it waits for.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count

Resume = Callable[[], None]
#: A life yields this function, which is then called with the function that resumes the life.
Wait = Callable[[Resume], None]
Life = Generator[Wait, None, None]


@dataclass(frozen=True)
class Block:
    """What one block takes of an idle machine at each stage of its life.

    Attributes
    ----------
    read, compute, encode : processor seconds of one thread; the encoders of a worker share ``encode``.
    publish : seconds of waiting for the disk.
    bytes_in, bytes_out : bytes that are read from the shared storage, and written to it.
    """

    read: float
    compute: float
    encode: float
    publish: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


@dataclass(frozen=True)
class Site:
    """The machines on which a job is simulated.

    Attributes
    ----------
    machines, workers : number of machines, and of worker processes on each.
    speeds : speed of one thread, relative to an idle machine, when 1, 2, ... cores are busy; one number for
        each core of a machine.
    in_flight, encoders : blocks that a worker has at once, and encoder threads for each of them.
    start_seconds : seconds until a worker takes the first block.
    schedule_seconds : seconds that the scheduler, which all workers share, spends on a block.
    storage_rate, link_rate : bytes per second of the shared storage, and of a single transfer at most.
    """

    machines: int
    workers: int
    speeds: Sequence[float]
    in_flight: int = 2
    encoders: int = 2
    start_seconds: float = 0.0
    schedule_seconds: float = 0.0
    storage_rate: float = float("inf")
    link_rate: float = float("inf")

    def thread_speed(self, threads: float) -> float:
        """The speed of each of ``threads`` threads that want to run.

        It is taken from ``speeds``, and shared out if there are more threads than cores.
        """
        cores = len(self.speeds)
        return self.speeds[min(cores, max(1, round(threads))) - 1] * min(1.0, cores / threads)

    def transfer_speed(self, transfers: float) -> float:
        """Bytes per second of each of ``transfers`` transfers."""
        return min(self.link_rate, self.storage_rate / transfers)


class Clock:
    """The simulated time, and the events that are still to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Resume]] = []
        self._order = count()

    def at(self, time: float, what: Resume) -> None:
        """Call ``what`` at ``time``."""
        heapq.heappush(self._events, (time, next(self._order), what))

    def after(self, seconds: float) -> Wait:
        """Wait for ``seconds``."""
        return lambda resume: self.at(self.now + seconds, resume)

    def begin(self, life: Life) -> None:
        """Start ``life``, and resume it after each wait until it ends."""

        def step() -> None:
            wait = next(life, None)
            if wait is not None:
                wait(step)

        step()

    def run(self) -> float:
        """Let all events happen, and return the time of the last."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.now


class Shared:
    """A resource that all users share evenly; ``speed`` is that of one user, given the number of users.

    The order in which users finish never changes in *virtual time*, which is what a user of weight 1 has
    received so far. So a single heap suffices.
    """

    def __init__(self, clock: Clock, speed: Callable[[float], float]) -> None:
        self._clock, self._speed = clock, speed
        self._virtual = self._seen = self._weight = 0.0
        self._users: list[tuple[float, int, float, Resume]] = []
        self._order, self._version = count(), 0

    def use(self, amount: float, weight: float = 1.0) -> Wait:
        """Wait until this user, who counts as ``weight`` users, has received ``amount``."""

        def wait(resume: Resume) -> None:
            if amount <= 0.0:
                return resume()
            self._advance()
            heapq.heappush(self._users, (self._virtual + amount / weight, next(self._order), weight, resume))
            self._weight += weight
            self._expect()
            return None

        return wait

    def _advance(self) -> None:
        """Bring the virtual time up to now."""
        if self._users:
            self._virtual += (self._clock.now - self._seen) * self._speed(self._weight)
        self._seen = self._clock.now

    def _expect(self) -> None:
        """Schedule the end of the user who finishes first; void if another comes or goes before."""
        self._version += 1
        version = self._version
        if self._users:
            left = max(0.0, self._users[0][0] - self._virtual)
            self._clock.at(self._clock.now + left / self._speed(self._weight), lambda: self._finish(version))

    def _finish(self, version: int) -> None:
        """End the user who finishes first, unless another came or went since ``version``."""
        if version != self._version:
            return
        self._advance()
        _, _, weight, resume = heapq.heappop(self._users)
        self._weight = self._weight - weight if self._users else 0.0
        self._expect()
        resume()


class Lock:
    """A lock that lives hold one at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._held, self._waiting = False, deque[Resume]()

    def take(self, resume: Resume) -> None:
        """Wait for the lock and take it."""
        if self._held:
            self._waiting.append(resume)
        else:
            self._held = True
            resume()

    def give(self) -> None:
        """Give the lock to the life that waits longest, if any does."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._held = False


def simulate(blocks: int, block: Block, site: Site) -> float:
    """The simulated seconds until ``blocks`` blocks like ``block`` are published at ``site``."""
    clock, scheduler, left = Clock(), Lock(), iter(range(blocks))
    storage = Shared(clock, site.transfer_speed)

    def slot(cores: Shared, device: Lock) -> Life:
        yield clock.after(site.start_seconds)
        for _ in left:
            if site.schedule_seconds:
                yield scheduler.take
                yield clock.after(site.schedule_seconds)
                scheduler.give()
            if site.storage_rate < float("inf"):
                yield storage.use(block.bytes_in)
            yield cores.use(block.read)
            yield device.take
            yield cores.use(block.compute)
            device.give()
            yield cores.use(block.encode, site.encoders)
            if site.storage_rate < float("inf"):
                yield storage.use(block.bytes_out)
            yield clock.after(block.publish)

    for _ in range(site.machines):
        cores = Shared(clock, site.thread_speed)
        for _ in range(site.workers):
            device = Lock()
            for _ in range(site.in_flight):
                clock.begin(slot(cores, device))
    return clock.run()


def bound(blocks: int, block: Block, site: Site) -> float:
    """The seconds that no order of work can beat, by the busiest of devices, cores, storage and scheduler."""
    workers, cores = site.machines * site.workers, site.machines * len(site.speeds)
    best = max(n * site.thread_speed(n) for n in range(1, len(site.speeds) + 1)) / len(site.speeds)
    per_block = (
        block.compute / max(site.speeds) / workers,
        (block.read + block.compute + block.encode) / best / cores,
        (block.bytes_in + block.bytes_out) / site.storage_rate,
        site.schedule_seconds,
    )
    return blocks * max(per_block)


def check() -> None:
    """Compare the simulation with cases whose answer is known; raises AssertionError if they differ."""
    single = Site(1, 1, (1.0,), in_flight=1)
    work = Block(1.0, 2.0, 3.0, publish=0.5)
    assert near(simulate(10, work, single), 10 * 6.5), "one slot: the stages one after the other"
    both = Site(1, 1, (1.0,) * 6, in_flight=4, encoders=1)
    assert near(simulate(10, work, both), 1 + 10 * 2 + 3.5), "cores enough: the device never waits"
    full = Site(1, 2, (1.0, 0.8), in_flight=2)
    steady = simulate(400, Block(0.1, 1.0, 0.1), full) / 400
    assert near(steady, 1.2 / 1.6, 0.01), "two busy cores at 0.8 share out all work"
    wire = Site(4, 1, (1.0,), storage_rate=10.0)
    heavy = Block(0.0, 1.0, 0.0, bytes_in=5.0, bytes_out=15.0)
    assert near(simulate(400, heavy, wire) / 400, 2.0, 0.02), "the storage sets the pace"
    queue = Site(64, 1, (1.0,), schedule_seconds=0.5)
    assert near(simulate(400, Block(0.0, 1.0, 0.0), queue) / 400, 0.5, 0.02), "the scheduler sets the pace"
    for site in (single, both, full, wire, queue):
        for block in (work, heavy, Block(0.3, 0.2, 0.9, 0.1, 3.0, 4.0)):
            assert simulate(50, block, site) >= bound(50, block, site) * (1 - 1e-9), "no faster than can be"


def near(value: float, wanted: float, within: float = 1e-9) -> bool:
    """Whether ``value`` differs from ``wanted`` by at most the part ``within`` of it."""
    return abs(value - wanted) <= within * wanted
