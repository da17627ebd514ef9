"""Delete a batch: its header first, in one step with which it is gone for everybody; then, a page at a time, the rest.

It may be cut off anywhere and run again. What it has left then lapses with its lifetime, and a worker that meets such a
chunk forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from producer.bits import Bits
from producer.redrives.origins import find_places, scan_chunks
from producer.spoilt import naming
from producer.status import read_status
from protocol import keys
from protocol.connection import Scripts
from protocol.errors import BatchNotFoundError, ProtocolError

# Chunks that are taken out of the queue in one trip.
_CHUNKS_A_TRIP = 100
# Fields in one reply of the jobs that run again.
_RETRIES_A_PAGE = 1000


class Deletion:
    """Delete a batch.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: Its queue, where its header does not tell.
    """

    def __init__(self, scripts: Scripts, batch_id: str, queue: str) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._batch_id = batch_id
        self._queue = queue

    async def run(self) -> None:
        """Delete the batch, or what is left of it."""
        with suppress(BatchNotFoundError, ProtocolError):  # then the caller knows it
            self._queue = (await read_status(self._redis, self._batch_id)).queue
        names = (keys.batch(self._batch_id), keys.BATCHES)
        await self._scripts.run("delete", names, (self._batch_id,))
        firsts = await self._forget_chunks()
        await self._forget(keys.retry_id(self._batch_id, first, index) for index, first in await self._retries(firsts))
        await self._redis.unlink(*keys.of_batch(self._batch_id))

    async def _forget_chunks(self) -> Bits:
        """Take all chunks out of the queue; returns the first index of each."""
        firsts = Bits()
        try:
            async for first, _ in scan_chunks(self._redis, self._batch_id):
                firsts.add(first)
        except ProtocolError:
            return firsts  # another type of value: it tells of no chunks
        await self._forget(keys.chunk_id(self._batch_id, first) for first in firsts)
        return firsts

    async def _retries(self, firsts: Bits) -> Iterator[tuple[int, int]]:
        """Find the jobs that run again in chunks of their own: index, and first index of its chunk."""
        key, cursor, indexes = keys.retries(self._batch_id), 0, Bits()
        while True:
            try:
                with naming(key):
                    cursor, page = await self._redis.hscan(key, cursor, count=_RETRIES_A_PAGE)
            except ProtocolError:
                return iter(())
            for field in page:
                if field.isdigit() and len(field) < 11:
                    indexes.add(int(field))
            if cursor == 0:
                return find_places(indexes, firsts)

    async def _forget(self, chunk_ids: Iterable[str]) -> None:
        """Take chunks out of the queue, and from the workers that have them."""
        coming = iter(chunk_ids)
        while some := list(islice(coming, _CHUNKS_A_TRIP)):
            prefixes = (keys.ARQ_JOB, keys.ARQ_RETRY, keys.ARQ_IN_PROGRESS)
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zrem(keys.queue(self._queue), *some)
                pipe.zrem(keys.leases(self._queue), *some)
                pipe.unlink(*(prefix + chunk_id for chunk_id in some for prefix in prefixes))
                await pipe.execute(raise_on_error=False)
