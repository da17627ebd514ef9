"""Who is there to run jobs: the live workers of a queue, as they say themselves."""

from __future__ import annotations

from protocol import keys
from protocol.connection import ArqRedis

# Reckoned with while no worker is alive yet: one, with its default concurrency.
ASSUMED_SLOTS = 100


async def workers_alive(redis: ArqRedis, queue: str, now: float) -> list[str]:
    """Name the workers that have been seen lately; `now` is Redis' time, Unix s."""
    seen = await redis.zrangebyscore(keys.workers(queue), now - keys.WORKER_LIFETIME, "+inf")
    return [worker_id.decode() for worker_id in seen]


async def slots_alive(redis: ArqRedis, queue: str, now: float) -> int:
    """Count the slots of all live workers of a queue."""
    alive = await workers_alive(redis, queue, now)
    async with redis.pipeline(transaction=False) as pipe:
        for worker_id in alive:
            pipe.hget(keys.worker(worker_id), "slots")
        slots = await pipe.execute()
    return sum(int(count) for count in slots if count) or ASSUMED_SLOTS
