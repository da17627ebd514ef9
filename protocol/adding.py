"""Add jobs to an open batch: from a producer, or from a job of the batch itself.

Redis appends them in one step and tells their indexes, so many may add at the same time. A job with a name is added
once, however often it comes; a call without names, too, by the number that its adder gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis.exceptions import ResponseError

from protocol import keys
from protocol.chunks import CHUNK_BYTES, LARGEST_AMONG_WORKERS
from protocol.connection import Call, Scripts
from protocol.errors import BatchClosedError, BatchLostError, ProtocolError
from protocol.newjobs import NewJob


class Adder:
    """Add jobs to one batch.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: Its queue.
        adder_id: Who adds; for calls of jobs without names.
    """

    def __init__(self, scripts: Scripts, batch_id: str, queue: str, adder_id: str = "") -> None:
        self._scripts = scripts
        self._batch_id = batch_id
        self._queue = queue
        self._adder_id = adder_id
        self._calls = 0

    async def add(self, portion: Sequence[NewJob], name: Callable[[NewJob], str]) -> list[int]:
        """Add what one call may carry; returns the index of each job. Its calls must not overlap.

        Args:
            portion: The jobs.
            name: Names a job, so that it is not added again; "" for none.

        Raises:
            BatchClosedError: If the batch takes no more jobs, and has not all of these already.
            BatchLostError: If it is gone.
            ProtocolError: If one of its keys is not ours.
        """
        self._calls += 1
        named = [(name(new), new.text) for new in portion]
        number = "" if all(text for text, _ in named) else self._calls
        batch_id = self._batch_id
        names = (
            keys.batch(batch_id), keys.chunks(batch_id), keys.queue(self._queue), keys.wake(self._queue),
            keys.names(batch_id),
        )  # fmt: skip
        about = (batch_id, self._queue, int(keys.OPEN_BATCH_LIFETIME * 1000), LARGEST_AMONG_WORKERS, CHUNK_BYTES)
        jobs = [part for both in named for part in both]
        return self._read(await self._run(("add", names, (*about, self._adder_id, number, *jobs))))

    async def _run(self, call: Call) -> Sequence[int]:
        try:
            [reply] = await self._scripts.run_all([call])
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise ProtocolError(keys.batch(self._batch_id), f"a key of the batch is not ours ({error})") from None
            raise
        return list(reply)

    def _read(self, reply: Sequence[int]) -> list[int]:
        total, *indexes = reply
        if total == -1:
            raise BatchLostError(self._batch_id)
        if total == -2:
            raise ProtocolError(keys.batch(self._batch_id), "no header of a batch")
        if total == -3:
            raise BatchClosedError(self._batch_id, indexes[0])
        return indexes
