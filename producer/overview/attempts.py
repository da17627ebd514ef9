"""A job's attempts that did not become its result, as its workers and their deaths have left them in Redis."""

from __future__ import annotations

from producer.spoilt import naming
from protocol import keys
from protocol.attempts import Attempt, decode_attempts
from protocol.connection import ArqRedis


async def read_attempts(redis: ArqRedis, batch_id: str, index: int) -> list[Attempt]:
    """Read what is kept of one job's attempts, in the order in which they ended.

    Raises:
        ProtocolError: If the key is not ours.
    """
    key = keys.attempts(batch_id)
    with naming(key):
        lines = await redis.hget(key, str(index))  # type: ignore[misc]  # typed for both clients
    return sorted(decode_attempts(lines or b"", key), key=lambda attempt: attempt.finished_at)
