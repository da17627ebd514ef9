"""What one job of a batch was called with, found without reading the batch's other chunks."""

from __future__ import annotations

from typing import Any

from producer.spoilt import naming
from protocol import keys
from protocol.chunks import LARGEST_CHUNK, decode_chunk
from protocol.connection import ArqRedis
from protocol.jobs import JobSpec


async def read_job(redis: ArqRedis, batch_id: str, index: int) -> JobSpec[Any] | None:
    """Read one job; None if it is no longer kept, as all jobs of its chunk succeeded, or not there.

    Raises:
        ProtocolError: If the chunks are not ours.
    """
    key = keys.chunks(batch_id)
    # So far before it its chunk may begin.
    candidates = range(index, max(-1, index - LARGEST_CHUNK), -1)
    async with redis.pipeline(transaction=False) as pipe:
        for number in candidates:
            pipe.hexists(key, str(number))
        with naming(key):
            are_there = await pipe.execute()
    first = next((number for number, is_there in zip(candidates, are_there, strict=True) if is_there), None)
    data = None if first is None else await redis.hget(key, str(first))  # type: ignore[misc]  # typed for both clients
    if first is None or data is None:
        return None
    jobs = decode_chunk(first, data, key)
    return jobs[index - first] if index - first < len(jobs) else None
