"""A worker's hold on its chunks: leases renewed in one script for all of them, and its sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import ArqRedis, RedisClock, Scripts

logger = logging.getLogger(__name__)

# A worker that leaves waits this long, s, for a Redis that is away to take note; its keys lapse by themselves.
FAREWELL = 1.0


@dataclass(frozen=True, slots=True)
class Leased:
    """A chunk that this worker holds."""

    chunk_id: str
    batch_id: str
    first: int
    count: int


class Leases:
    """Renew what this worker holds every few seconds, and say that it is alive.

    Args:
        scripts: The scripts of the Redis that holds the queue.
        queue: The queue's name.
        worker_id: Who holds the leases.
        clock: Redis' clock.
        describe: Returns what else the worker's hash is to hold.
        on_lost: Called with the id of a chunk whose lease is no longer ours.
        lease: How long a lease lasts, s; it is renewed every third of that, less a little.
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
    ) -> None:
        self._scripts = scripts
        self._queue = queue
        self.worker_id = worker_id
        self._clock = clock
        self._describe = describe
        self._on_lost = on_lost
        self.lease_ms = int(lease * 1000)
        self._interval = lease * 0.3
        self._held: dict[str, Leased] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to renew."""
        self._task = asyncio.create_task(self._renew_for_ever(), name="straggler-leases")

    async def close(self) -> None:
        """Stop to renew and say goodbye; leases still held lapse by themselves."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        redis = self._scripts.redis
        try:
            async with asyncio.timeout(FAREWELL), redis.pipeline(transaction=False) as pipe:
                pipe.delete(keys.worker(self.worker_id))
                pipe.zrem(keys.workers(self._queue), self.worker_id)
                await pipe.execute()
        except (RedisError, OSError) as error:
            logger.warning("no goodbye to Redis: %s", error, extra={"event": "worker.no_goodbye"})

    def hold(self, leased: Leased) -> None:
        """Renew this chunk's lease from now on."""
        self._held[leased.chunk_id] = leased

    def forget(self, leased: Leased) -> None:
        """Renew this chunk's lease no longer: it lapses, unless it is released."""
        self._held.pop(leased.chunk_id, None)

    async def release(self, leased: Leased, outcome: str) -> None:
        """Let go of a chunk: `succeeded`, `ended` or `again` (see release.lua)."""
        self.forget(leased)
        chunk = [leased.chunk_id, leased.batch_id, leased.first, leased.count, outcome]
        lifetime = int(keys.OPEN_BATCH_LIFETIME * 1000)
        try:
            await self._scripts.run(
                "release", (keys.queue(self._queue), keys.wake(self._queue)), (self.worker_id, lifetime, *chunk)
            )
        except (RedisError, OSError) as error:
            # Nothing is lost: the lease lapses, and whoever claims the chunk next finds its results in place.
            logger.warning(
                "chunk %s could not be released: %s", leased.chunk_id, error,
                extra={"event": "chunk.release_failed", "chunk": leased.chunk_id},
            )  # fmt: skip

    async def beat(self) -> None:
        """Say that this worker is alive, and renew its leases."""
        await self._say_alive()
        if not self._held:
            return
        args = (self.worker_id, self.lease_ms, *self._held)
        for chunk_id in await self._scripts.run("renew", (keys.queue(self._queue),), args):
            name = chunk_id.decode()
            if self._held.pop(name, None) is not None:
                logger.warning("lease of chunk %s was lost", name, extra={"event": "lease.lost", "chunk": name})
                self._on_lost(name)

    async def _say_alive(self) -> None:
        now = self._clock.now()
        about = {"host": socket.gethostname(), "pid": os.getpid(), "queue": self._queue, **self._describe()}
        name, index = keys.worker(self.worker_id), keys.workers(self._queue)
        async with self._scripts.redis.pipeline(transaction=False) as pipe:
            pipe.hset(name, mapping=about)
            pipe.pexpire(name, int(keys.WORKER_LIFETIME * 1000))
            pipe.zadd(index, {self.worker_id: now})
            pipe.zremrangebyscore(index, "-inf", now - keys.WORKER_LIFETIME)
            pipe.pexpire(index, int(keys.WORKER_LIFETIME * 1000))
            await pipe.execute()

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                await self.beat()
            except (RedisError, OSError) as error:
                logger.warning("leases could not be renewed: %s", error, extra={"event": "lease.renew_failed"})
            await asyncio.sleep(self._interval)


def health_key(queue: str) -> str:
    """Name this host's health key."""
    return keys.health(f"{queue}:{socket.gethostname()}")


async def say_goodbye(redis: ArqRedis, queue: str) -> None:
    """Delete this host's health key; a Redis that is away is not waited for."""
    with contextlib.suppress(RedisError, OSError):
        async with asyncio.timeout(FAREWELL):
            await redis.delete(health_key(queue))
