"""Who is there to run jobs: the live workers of a queue, as they say themselves."""

from __future__ import annotations

import logging

from producer.spoilt import naming
from protocol import keys
from protocol.batches import BatchStatus
from protocol.connection import ArqRedis

logger = logging.getLogger(__name__)


async def workers_alive(redis: ArqRedis, queue: str, now: float) -> list[str]:
    """Name the workers that have been seen lately; `now` is Redis' time, Unix s.

    Raises:
        ProtocolError: If the list of workers is not ours.
    """
    key = keys.workers(queue)
    with naming(key):
        seen = await redis.zrangebyscore(key, now - keys.WORKER_LIFETIME, "+inf")
    return [worker_id.decode(errors="backslashreplace") for worker_id in seen]


class Fleet:
    """The live workers of one batch's queue, as its collector sees them; each change from or to none is logged once."""

    def __init__(self) -> None:
        self._is_missed = False

    def see(self, batch: BatchStatus, alive: int) -> None:
        """Take note of how many workers are alive while the batch has jobs open."""
        waiting = batch.total - batch.done
        if alive == 0 and waiting and not self._is_missed:
            self._is_missed = True
            logger.warning(
                "no worker is alive on queue %r: batch %s waits with %d jobs open; "
                "start one with 'straggler worker --jobs MODULE --queue %s'",
                batch.queue, batch.batch_id, waiting, batch.queue,
                extra={"event": "batch.no_workers", "batch": batch.batch_id, "queue": batch.queue},
            )  # fmt: skip
        elif alive and self._is_missed:
            self._is_missed = False
            logger.info(
                "%d workers are alive on queue %r again: batch %s goes on", alive, batch.queue, batch.batch_id,
                extra={"event": "batch.workers", "batch": batch.batch_id, "queue": batch.queue},
            )  # fmt: skip
