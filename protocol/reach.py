"""Make sure that a Redis answers before anybody relies on it; say what is wrong, and the cure, where it does not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from protocol.connection import ArqRedis, connect
from protocol.errors import RedisUnavailableError
from protocol.memory import MemoryPool
from protocol.patience import is_passing, is_refusal, pauses

logger = logging.getLogger(__name__)

# How long, s, a Redis that nobody has spoken to yet is waited for.
_LONGEST_REACH = 2.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[ArqRedis]:
    """Make sure that Redis answers, connect, and close at the end.

    Raises:
        RedisUnavailableError: If Redis does not answer.
    """
    await reach(url)
    redis = connect(url)
    try:
        yield redis
    finally:
        await redis.aclose(close_connection_pool=True)


async def reach(url: str) -> None:
    """Make sure that Redis answers, as a person may be waiting; one that is just loading its data is waited for.

    Raises:
        RedisUnavailableError: If it does not answer within a few seconds; says how to get one.
    """
    redis = connect(url, patient=False)
    if isinstance(redis.connection_pool, MemoryPool):
        return  # it is here
    try:
        await _reach(redis, url)
    finally:
        await redis.aclose(close_connection_pool=True)


async def _reach(redis: ArqRedis, url: str) -> None:
    until = time.monotonic() + _LONGEST_REACH
    is_said = False
    waits = pauses()
    while True:
        try:
            async with asyncio.timeout(_LONGEST_REACH):
                await redis.ping()
                return
        except (RedisError, OSError) as error:
            if is_refusal(error):
                if not is_said:
                    logger.warning("Redis is there, but not ready (%s)", error, extra={"event": "redis.not_ready"})
                is_said = True
                until = time.monotonic() + _LONGEST_REACH
            elif not is_passing(error) or time.monotonic() > until:
                raise _unavailable(url, error) from None
        await asyncio.sleep(next(waits))


def _unavailable(url: str, error: Exception) -> RedisUnavailableError:
    where, why = _without_password(url), str(error).rstrip(".") or "no reply"
    named = "with --redis or STRAGGLER_REDIS_URL"
    if isinstance(error, AuthenticationError):
        cure = f"say who you are, as redis://USER:PASSWORD@host:6379 or redis://:PASSWORD@host:6379, {named}"
        return RedisUnavailableError(f"the Redis at {where} refuses us ({why}): {cure}")
    if isinstance(error, ResponseError):
        return RedisUnavailableError(f"the Redis at {where} refuses us ({why}): correct its URL, {named}")
    return RedisUnavailableError(
        f"no Redis answers at {where} ({why}): start one with 'redis-server', or name another {named}"
    )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@")
