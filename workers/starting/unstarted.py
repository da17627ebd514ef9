"""The jobs of a chunk that have not started: in which turn, and what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from protocol.chunks import Calls
from protocol.jobs import JobSpec
from workers import registry
from workers.starting.slots import Slots


class Surplus(NamedTuple):
    """Jobs that are on their way back into the queue.

    Args:
        indexes: Which, the next one last.
        kept: How many of their chunk's jobs stay with it, from its first on.
    """

    indexes: list[int]
    kept: int


class Unstarted:
    """Keep them, counted among those that wait for the worker's slots and for its places in processes.

    Args:
        indexes: Which these are, in order.
        first: Index of the chunk's first job.
        jobs: All its jobs.
        slots: The worker's slots.
        places: Its places in processes, for which plain functions wait, too.

    Attributes:
        left: The next one last.
        at_door: The one that has its place, and waits until the process is ready.
    """

    def __init__(
        self, indexes: list[int], first: int, jobs: Sequence[JobSpec[Any]], slots: Slots, places: Slots
    ) -> None:
        self.left = indexes[::-1]
        self.at_door: int | None = None
        self._first = first
        self._slots = slots
        self._places = places
        self._plain = _plain(indexes, first, jobs)
        self._seen = -1
        self._away: asyncio.Future[None] | None = None
        self._count(1, self.left)

    @property
    def are_over(self) -> bool:
        """Whether no job is left that could start."""
        return not self.left and self.at_door is None and self._away is None

    @property
    def is_next_plain(self) -> bool:
        """Whether the next job, if there is one, needs a process."""
        return bool(self._plain) and bool(self.left) and self.left[-1] in self._plain

    def every(self) -> list[int]:
        """List those that may be told not to start any more."""
        return self.left if self.at_door is None else [*self.left, self.at_door]

    def pop(self) -> int:
        """Take the next one, which starts now."""
        index = self.left.pop()
        self._slots.waiting -= 1
        if self._plain and index in self._plain:
            self._places.waiting -= 1
            self._places.tell()
        return index

    def take_out(self, indexes: Container[int]) -> None:
        """Take out those that shall not start."""
        if self.at_door is not None and self.at_door in indexes:
            self.at_door = None
        self._keep([index for index in self.left if index not in indexes])

    def clear(self) -> None:
        """Take out all but the one that waits for its process."""
        self._keep([])

    def is_held_up(self) -> bool:
        """Whether none has started since this was last asked, for want of a slot or of a process, or few soon will."""
        before, self._seen = self._seen, len(self.left)
        if self.left and not self.is_next_plain and self._slots.waiting >= 2 * self._slots.at_hand:
            return True
        return 0 < before == len(self.left) and not (self.waits_for.free and self._slots.free)

    @property
    def waits_for(self) -> Slots:
        """What the next one waits for before all else."""
        return self._places if self.is_next_plain else self._slots

    def withhold(self, least: int) -> Surplus | None:
        """Take out all that may be given back, so that `least` jobs of the chunk stay; None if these are all."""
        stay = max(0, least - (self.left[-1] - self._first)) if self.left else 0
        indexes = self.left[: len(self.left) - stay]
        if not indexes:
            return None
        self._away = asyncio.get_running_loop().create_future()
        self._keep(self.left[len(indexes) :])
        return Surplus(indexes, indexes[-1] - self._first)

    def take_back(self, indexes: Sequence[int]) -> None:
        """Put those back that were withheld; none if they are somebody else's now."""
        away, self._away = self._away, None
        self.left = [*indexes, *self.left]
        self._count(1, indexes)
        self._seen = -1
        if away is not None and not away.done():
            away.set_result(None)

    async def come_back(self) -> bool:
        """Wait until it is known what has become of what was withheld; returns whether there is any to start."""
        if self._away is not None:
            await self._away
        return bool(self.left)

    def _keep(self, left: list[int]) -> None:
        self._count(-1, self.left)
        self.left = left
        self._count(1, left)
        self._slots.tell()
        self._places.tell()

    def _count(self, sign: int, indexes: Sequence[int]) -> None:
        self._slots.waiting += sign * len(indexes)
        if self._plain:
            self._places.waiting += sign * sum(index in self._plain for index in indexes)


def _plain(indexes: list[int], first: int, jobs: Sequence[JobSpec[Any]]) -> Container[int]:
    """Tell which of some jobs need a process."""
    if not isinstance(jobs, Calls):
        return frozenset(index for index in indexes if _is_plain(jobs[index - first].function))
    plain = [_is_plain(kind.function) for kind in jobs.kinds]
    if all(plain) or not any(plain):
        return range(first, first + len(jobs)) if any(plain) else ()
    return frozenset(index for index in indexes if _is_plain(jobs.kind_of(index - first).function))


def _is_plain(function: str) -> bool:
    return registry.isolation_of(function) == "process"
