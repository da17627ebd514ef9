"""Close a batch whose deadline has passed, or which was stopped: each of its jobs without a result gets one.

The workers do so for what they hold; this is for what nobody holds any more, or ever did.
"""

from __future__ import annotations

import logging
from typing import Any

from producer.control.openjobs import OpenJobs, without_result
from producer.control.settling import Settlement, Share
from producer.spoilt import naming
from producer.status import read_status
from producer.submission import read_reply, submit_call
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.clock import RedisClock
from protocol.connection import Scripts
from protocol.errors import BatchLostError, BatchNotFoundError, ProtocolError
from protocol.results import Stopped

logger = logging.getLogger(__name__)

# Jobs whose bits are looked at in one step of the last sweep.
_BITS_A_PAGE = 1 << 16


class Expiry:
    """Close a batch.

    Args:
        scripts: The scripts of its Redis.
        status: As its header says.
        options: As it was submitted with.
        clock: Redis' clock.
    """

    def __init__(self, scripts: Scripts, status: BatchStatus, options: BatchOptions, clock: RedisClock) -> None:
        self._redis = scripts.redis
        self._status = status
        self._batch_id = status.batch_id
        self._options = options
        self._total = status.total
        self._stopped = status.stopped
        self._limit = options.deadline or max(0.0, (status.deadline or 0.0) - status.created_at)
        self._settlement = Settlement(scripts, status, options, clock, self._ending)

    async def run(self, *, is_final: bool) -> None:
        """Give results to jobs that have none.

        Args:
            is_final: Whether to all of them; else only to those that no worker holds.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        why = "its deadline has passed" if self._stopped is None else self._stopped
        logger.info(
            "batch %s is closed: %s", self._batch_id, why,
            extra={"event": "batch.deadline" if self._stopped is None else "batch.stopped", "batch": self._batch_id},
        )  # fmt: skip
        if not self._status.closed:
            await self._close()
        open_jobs = OpenJobs(self._redis, self._batch_id, self._total)
        async for page in open_jobs.pages():
            chunks = await open_jobs.find(page)
            await self._settlement.settle(
                [Share(chunk, chunk.waiting, chunk.held if is_final else ()) for chunk in chunks]
            )
        if is_final:
            await self._sweep()
            await self._check()

    async def _close(self) -> None:
        """Close the batch with the jobs that it has by now; its producer is told when it comes with more."""
        call = submit_call(self._batch_id, self._status.queue, self._options, (), total=self._total, must_exist=True)
        self._total, _ = read_reply(self._batch_id, *await self._settlement.run([call]))

    def _ending(self, is_held: bool) -> dict[str, Any]:  # noqa: FBT001  # a Settlement's
        if self._stopped is not None:
            return {"status": "cancelled", "reason": self._stopped}
        stopped: Stopped = "abandoned" if is_held else "not started"
        return {"status": "timeout", "limit": self._limit, "phase": "batch", "stopped": stopped}

    async def _sweep(self) -> None:
        """Report what no chunk tells of: jobs whose chunk is gone, or is not ours."""
        done = keys.done(self._batch_id)
        for begin in range(0, self._total, _BITS_A_PAGE):
            end = min(begin + _BITS_A_PAGE, self._total)
            with naming(done):
                bits = await self._redis.getrange(done, begin // 8, (end - 1) // 8)
            await self._settlement.settle_unknown(without_result(bits, begin, begin, end))

    async def _check(self) -> None:
        """Make sure that the batch is complete now: what would keep it from that for ever must not be waited for."""
        try:
            found = await read_status(self._redis, self._batch_id)
        except BatchNotFoundError:
            raise BatchLostError(self._batch_id) from None
        if not found.complete:
            raise ProtocolError(
                keys.done(self._batch_id),
                f"all {self._total:,} jobs are marked as done, and {found.done:,} of {found.total:,} were counted",
            )
