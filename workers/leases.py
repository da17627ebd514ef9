"""A worker's hold on its chunks: leases renewed in one script for all of them, and its sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableSequence
from typing import Any

from redis.exceptions import RedisError

from protocol import keys
from protocol.clock import RedisClock
from protocol.connection import ArqRedis, Scripts
from workers.claims import Claimed
from workers.vitals.pulse import CELLS, LEASED_UNTIL

logger = logging.getLogger(__name__)

# A worker that leaves waits this long, s, for a Redis that is away to take note; its keys lapse by themselves.
FAREWELL = 1.0


class Leases:
    """Renew what this worker holds every few seconds, and say that it is alive.

    A lease that could not be renewed in time is lost, whoever has the chunk now: Redis may be away, or this worker cut
    off from it, and what it goes on with others may have begun.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        worker_id: Who holds the leases.
        clock: Redis' clock.
        describe: Returns what else the worker's hash is to hold.
        on_lost: Called with the id of a chunk whose lease is no longer ours.
        lease: How long a lease lasts, s; it is renewed every third of that, less a little.
        cells: The memory that is shared with a supervisor, which renews where a job keeps this process from it.
        on_drain: Called each time that somebody is found to want this worker to leave.
        is_alone: Whether nobody else could take what it holds: a lease that has lapsed, as this process stood still
            (Ctrl-Z, a lid that was closed), is not lost then.

    Attributes:
        renewed: How often a lease has been renewed.
        lost: How many leases have been lost.
    """

    def __init__(
        self,
        scripts: Scripts,
        queue: str,
        worker_id: str,
        clock: RedisClock,
        describe: Callable[[], dict[str, Any]],
        on_lost: Callable[[str], None],
        lease: float = 10.0,
        cells: MutableSequence[float] | None = None,
        on_drain: Callable[[], None] = lambda: None,
        *,
        is_alone: bool = False,
    ) -> None:
        self._scripts = scripts
        self._queue = queue
        self.worker_id = worker_id
        self._clock = clock
        self._describe = describe
        self._on_lost = on_lost
        self._on_drain = on_drain
        self._is_alone = is_alone
        self._lease = lease
        self._cells = cells if cells is not None else [0.0] * CELLS
        self._interval = lease * 0.3
        # A chunk's id -> when its lease ends unless it is renewed, on the monotonic clock.
        self._held: dict[str, float] = {}
        # Chunks that are let go of as soon as their last results are recorded.
        self._leaving: set[str] = set()
        self.renewed = self.lost = 0
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Start to renew."""
        self._tasks = (
            asyncio.create_task(self._renew_for_ever(), name="straggler-leases"),
            asyncio.create_task(self._watch_for_ever(), name="straggler-lapses"),
        )

    async def close(self) -> None:
        """Stop to renew and say goodbye; leases still held lapse by themselves."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(FAREWELL), self._scripts.redis.pipeline(transaction=False) as pipe:
                pipe.delete(
                    keys.worker(self.worker_id),
                    keys.claim(self.worker_id),
                    keys.drain(self.worker_id),
                    keys.running(self.worker_id),
                )
                pipe.zrem(keys.workers(self._queue), self.worker_id)
                await pipe.execute()

    def hold(self, chunk_id: str, until: float) -> None:
        """Renew this chunk's lease from now on; it ends at `until` (monotonic) if that fails."""
        self._held[chunk_id] = until

    def forget(self, chunk_id: str) -> None:
        """Renew this chunk's lease no longer: it lapses, unless it is released."""
        self._held.pop(chunk_id, None)
        self._leaving.discard(chunk_id)

    def expect_release(self, chunk_id: str) -> None:
        """Take note that this chunk is being let go of: a lease that is gone from now on was not lost."""
        self._leaving.add(chunk_id)

    async def release(self, claimed: Claimed, outcome: str, handed_back: Mapping[int, bytes] | None = None) -> None:
        """Let go of a chunk: `succeeded`, `ended` or `again` (see release.lua).

        Args:
            claimed: The chunk.
            outcome: What becomes of it.
            handed_back: How the attempts ended of jobs that were at work and run again, from `protocol.attempts`.
        """
        self.forget(claimed.chunk_id)
        payload = claimed.payload
        said: str | bytes = outcome
        if handed_back:
            said = b"\n".join([outcome.encode(), *(b"%d %b" % attempt for attempt in handed_back.items())])
        chunk = (claimed.chunk_id, payload.batch_id, payload.first, payload.jobs, said)
        lifetime = int(keys.OPEN_BATCH_LIFETIME * 1000)
        await self._scripts.run(
            "release", (keys.queue(self._queue), keys.wake(self._queue)), (self.worker_id, lifetime, *chunk)
        )

    async def give_back(self, claimed: Claimed, kept: int, known: bytes) -> int:
        """Put jobs of a chunk back into the queue, for others to start: all but the first `kept`.

        Args:
            claimed: The chunk.
            kept: How many stay; none stays if it is 0.
            known: The last decision of which its worker knows.

        Returns:
            1 if they are in the queue, 0 if they stay here, -1 if the chunk is no longer ours.
        """
        names = keys.queue(self._queue), keys.wake(self._queue), keys.workers(self._queue)
        lifetime = int(keys.OPEN_BATCH_LIFETIME * 1000)
        args = (self.worker_id, lifetime, claimed.chunk_id, kept, known)
        return int(await self._scripts.run("giveback", (*names, keys.batch(claimed.payload.batch_id)), args))

    async def say_at_work(self, chunk_id: str, batch_id: str, index: int | None) -> bool:
        """Say which job of a chunk runs alone now, or that all may run; returns whether the chunk is still ours."""
        return bool(
            await self._scripts.run(
                "alone",
                (keys.ARQ_IN_PROGRESS + chunk_id, keys.holders(batch_id)),
                (self.worker_id, chunk_id, "" if index is None else index, int(keys.OPEN_BATCH_LIFETIME * 1000)),
            )
        )

    async def beat(self) -> None:
        """Renew the leases, and say that this worker is alive."""
        if self._held:
            # A Redis that refuses what takes memory still renews: the leases go before the sign of life.
            await self._renew()
        await self._say_alive()

    async def _renew(self) -> None:
        lease_ms = int(self._lease * 1000)
        renewed = list(self._held)
        seconds, microseconds, *lost = await self._scripts.run(
            "renew", (keys.queue(self._queue),), (self.worker_id, lease_ms, *renewed)
        )
        until = self._clock.monotonic(seconds, microseconds) + self._lease
        self.renewed += len(renewed) - len(lost)
        for chunk_id in set(renewed) & set(self._held):
            self._held[chunk_id] = until
        for chunk_id in {chunk_id.decode() for chunk_id in lost} - self._leaving:
            self._lose(chunk_id)

    def _lose(self, chunk_id: str) -> None:
        if self._is_alone or self._held.pop(chunk_id, None) is None:
            return
        self.lost += 1
        logger.warning(
            "lease of chunk %s was lost: its jobs stop here and run elsewhere", chunk_id,
            extra={"event": "lease.lost", "batch": chunk_id.rpartition(":")[0], "chunk": chunk_id},
        )  # fmt: skip
        self._on_lost(chunk_id)

    async def _say_alive(self) -> None:
        about = {"host": socket.gethostname(), "pid": os.getpid(), "queue": self._queue, **self._describe()}
        names = (keys.worker(self.worker_id), keys.workers(self._queue), keys.drain(self.worker_id))
        lifetimes = int(keys.WORKER_LIFETIME * 1000), int(keys.OPEN_BATCH_LIFETIME * 1000)
        said = [word for pair in about.items() for word in pair]
        sent = time.monotonic()
        is_to_drain, seconds, microseconds = await self._scripts.run(
            "alive", names, (self.worker_id, lifetimes[0], self._queue, lifetimes[1], *said)
        )
        self._clock.sync(seconds, microseconds, sent, time.monotonic())
        if is_to_drain:
            self._on_drain()

    async def _renew_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            try:
                # What Redis is told at last is to be of that moment, so what is held up is begun anew.
                async with asyncio.timeout_at(due):
                    await self.beat()
            except TimeoutError:
                continue
            except RedisError as error:  # another kind of value stands in one of our keys
                logger.warning("no sign of life: %s", error, extra={"event": "lease.beat_failed"})
            await asyncio.sleep(due - loop.time())

    async def _watch_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._interval / 10)
            now = loop.time()
            if self._cells[LEASED_UNTIL] > now:
                continue
            for chunk_id in [chunk_id for chunk_id, until in self._held.items() if until <= now]:
                self._lose(chunk_id)


def health_key(queue: str) -> str:
    """Name this host's health key."""
    return keys.health(f"{queue}:{socket.gethostname()}")


async def say_goodbye(redis: ArqRedis, queue: str) -> None:
    """Delete this host's health key; a Redis that is away is not waited for."""
    with contextlib.suppress(RedisError, OSError):
        async with asyncio.timeout(FAREWELL):
            await redis.delete(health_key(queue))
