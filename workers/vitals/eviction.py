"""Warn of a Redis that would rather throw batches away than refuse writes."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from protocol.connection import ArqRedis

logger = logging.getLogger(__name__)


async def warn_of_eviction(redis: ArqRedis) -> None:
    """Look at how Redis makes room when its memory is full.

    Each of our keys has a lifetime, so `volatile-lru` and its like take them, too.
    """
    try:
        memory = await redis.info("memory")
    except RedisError:  # a user who may not ask, or a Redis in this process
        return
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        logger.warning(
            "this Redis throws batches and results away when its memory is full (maxmemory-policy %s): set it to "
            "noeviction, which straggler waits out", policy, extra={"event": "redis.evicts"},
        )  # fmt: skip
