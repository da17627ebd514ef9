"""Give back what does not start here: jobs that have waited in vain for a slot or a process may start elsewhere.

A worker claims what it expects to start within milliseconds. Where that was wrong (long jobs after short ones, plain
functions among others), the jobs go back into the queue, to where they stood. While nobody else is alive they stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from redis.exceptions import RedisError

from protocol.control import Orders
from workers.claims import Claimed
from workers.starting.slots import Slots
from workers.starting.starts import Starts
from workers.starting.unstarted import Surplus

logger = logging.getLogger(__name__)

# So long, s, no job of a chunk has started when its jobs are given back; twice as long at most.
_IN_VAIN = 0.05
# Whose jobs were not taken back asks again later each time, until so long after, s: it may be alone.
_LONGEST_PAUSE = 1.0
_UNKNOWN = -1


class GivesBack(Protocol):
    """A chunk, as far as its jobs may go back."""

    claimed: Claimed
    orders: Orders | None
    starts: Starts | None

    def withhold(self, least: int) -> Surplus | None:
        """Start no more of what waits in vain."""

    def settle(self, surplus: Surplus, reply: int) -> None:
        """Take note of what has become of that."""


class GivingBack:
    """Look for such jobs while any wait; while none does, this costs nothing.

    Args:
        chunks: The chunks that are here, by id.
        slots: What their jobs wait for.
        send: Puts jobs back; see `Leases.give_back`.

    Attributes:
        least: So many jobs of a chunk stay, started or not.
    """

    def __init__(
        self, chunks: Mapping[str, GivesBack], slots: Slots, send: Callable[[Claimed, int, bytes], Awaitable[int]]
    ) -> None:
        self._chunks = chunks
        self._slots = slots
        self._send = send
        self.least = 0
        self._pause = _IN_VAIN
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Look in a while, as jobs have come."""
        if self._timer is None and self._looking is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._start_look)

    async def close(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _start_look(self) -> None:
        self._timer = None
        if not self._slots.waiting:
            self._pause = _IN_VAIN
            return
        held_up = [chunk for chunk in self._chunks.values() if chunk.starts is not None and chunk.starts.is_held_up()]
        if held_up:
            self._looking = asyncio.create_task(self._give_back(held_up), name="straggler-giving-back")
        else:
            self.watch()

    async def _give_back(self, held_up: list[GivesBack]) -> None:
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        try:
            for chunk in held_up:
                jobs = chunk.withhold(self.least)
                if jobs is not None:
                    await self._give_back_of(chunk, jobs)
        finally:
            self._looking = None
        self.watch()

    async def _give_back_of(self, chunk: GivesBack, jobs: Surplus) -> None:
        reply = _UNKNOWN
        try:
            known = b"" if chunk.orders is None else chunk.orders.version
            reply = await self._send(chunk.claimed, jobs.kept, known)
        except RedisError as error:
            reply = 0
            logger.warning("jobs cannot be given back: %s", error, extra={"event": "giveback.failed"})
        finally:
            chunk.settle(jobs, reply)
        if reply > 0:
            self._pause = _IN_VAIN
            logger.info(
                "chunk %s: %d jobs that could not start here are given back", chunk.claimed.chunk_id, len(jobs.indexes),
                extra={
                    "event": "chunk.given_back", "batch": chunk.claimed.payload.batch_id,
                    "chunk": chunk.claimed.chunk_id, "count": len(jobs.indexes),
                },
            )  # fmt: skip
