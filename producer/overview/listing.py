"""List batches, newest first, a page at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from producer.spoilt import naming, raise_named
from producer.status import parse_status
from protocol import keys
from protocol.batches import BatchStatus
from protocol.connection import ArqRedis
from protocol.errors import ProtocolError

logger = logging.getLogger(__name__)


async def newest(redis: ArqRedis, start: int, count: int) -> list[str]:
    """Name some of the batches, from the newest that is number 0; some of them may be gone.

    Raises:
        ProtocolError: If the list itself is not ours.
    """
    with naming(keys.BATCHES):
        names = await redis.zrevrange(keys.BATCHES, start, start + count - 1)
    return [name.decode(errors="backslashreplace") for name in names]


async def read_statuses(redis: ArqRedis, batch_ids: Sequence[str]) -> list[BatchStatus]:
    """Read how far batches are, in one round trip; who is gone is left out, who cannot be read is logged as well."""
    async with redis.pipeline(transaction=False) as pipe:
        for batch_id in batch_ids:
            pipe.hgetall(keys.batch(batch_id))
        headers = await pipe.execute(raise_on_error=False)
    found = []
    for batch_id, header in zip(batch_ids, headers, strict=True):
        try:
            raise_named(header, keys.batch(batch_id))
            found += [parse_status(batch_id, header)] if header else []
        except ProtocolError as error:
            logger.warning(
                "batch %s cannot be read: %s", batch_id, error, extra={"event": "batch.unreadable", "batch": batch_id}
            )
    return found
