"""Cancel jobs of a batch, all of them or some.

It is decided in Redis first, so that from then on no worker starts them. Then those that no worker has get their
results here. A worker that has some says when it knows of the decision, and gives them theirs, if they run after their
cleanup. One that says nothing in time is dead, cut off, or blocked by a job: it is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from producer.control.openjobs import OpenChunk, OpenJobs, Page
from producer.control.settling import Settlement, Share
from producer.spoilt import find_spoilt, naming, types_of
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts
from protocol.errors import BatchLostError, OptionError, shorten

logger = logging.getLogger(__name__)

# What one call of the script may look for, and calls in one trip.
_INDEXES_A_CALL = 250
_CALLS_A_TRIP = 16
# When it is looked again whether the workers know, s after the last look; most do at the first. Together they leave
# something of the 0.5 s in which each queued job is to have its result.
_LOOKS = (0.01, 0.03, 0.06, 0.2)
_LONGEST_REASON = 200


def checked_indexes(status: BatchStatus, indexes: Iterable[int] | None) -> list[int] | None:
    """Make sure that a batch has these jobs; returns their indexes in order, None for all.

    Raises:
        OptionError: If it has not.
    """
    if indexes is None:
        return None
    if not isinstance(indexes, Iterable) or isinstance(indexes, str | bytes):
        raise OptionError(f"indexes={indexes!r}: give a list such as [3, 5], or None for all jobs of the batch")
    wanted = set(indexes)
    for index in wanted:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < status.total:
            has = f"its {status.total:,} jobs are 0 to {status.total - 1}" if status.total else "it has no jobs so far"
            raise OptionError(f"batch {status.batch_id!r} has no job {index!r}: {has}")
    return sorted(wanted)


def checked_reason(reason: str) -> str:
    """Make sure that this can be a reason.

    Raises:
        OptionError: If it is too long.
    """
    if len(reason) > _LONGEST_REASON:
        raise OptionError(f"reason {shorten(reason)!r} is {len(reason):,} characters long: at most {_LONGEST_REASON}")
    return reason


class Cancellation:
    """Cancel jobs, once.

    Args:
        scripts: The scripts of the batch's Redis.
        status: As the batch's header says.
        options: As it was submitted with.
        reason: Why.
    """

    def __init__(self, scripts: Scripts, status: BatchStatus, options: BatchOptions, reason: str) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self._batch_id = status.batch_id
        self._reason = reason
        self._clock = RedisClock()
        self._open_jobs = OpenJobs(self._redis, status.batch_id, status.total)
        self._settlement = Settlement(scripts, status, options, self._clock, self._ending)
        self._indexes: frozenset[int] | None = None
        self._version = 0

    async def run(self, indexes: Sequence[int] | None) -> int:
        """Cancel these jobs, all if None; returns how many of them had no result yet.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        sent = time.monotonic()
        seconds, microseconds = await self._redis.time()
        self._clock.sync(seconds, microseconds, sent, time.monotonic())
        if indexes is None:
            count, _ = await self._decide([()])
            await self._settle(self._open_jobs.pages())
        else:
            self._indexes = frozenset(indexes)
            portions = [indexes[at : at + _INDEXES_A_CALL] for at in range(0, len(indexes), _INDEXES_A_CALL)]
            count, firsts = await self._decide(portions)
            await self._settle(self._open_jobs.named(firsts))
        logger.info(
            "batch %s: %d jobs are cancelled", self._batch_id, count,
            extra={"event": "batch.cancelled", "batch": self._batch_id, "count": count},
        )  # fmt: skip
        return count

    async def _decide(self, portions: Sequence[Sequence[int]]) -> tuple[int, set[int]]:
        """Let Redis know; returns how many jobs had no result, and the first jobs of their chunks."""
        count, firsts = 0, set[int]()
        for at in range(0, len(portions), _CALLS_A_TRIP):
            for version, *found in await self._run([self._call(some) for some in portions[at : at + _CALLS_A_TRIP]]):
                if version == -1:
                    raise BatchLostError(self._batch_id)
                if version >= 0:  # else the batch is complete
                    self._version = max(self._version, version)
                    count += found[0]
                    firsts.update(first for first in found[1:] if first >= 0)
        return count, firsts

    def _call(self, indexes: Sequence[int]) -> Call:
        batch_id = self._batch_id
        names = (keys.batch(batch_id), keys.cancelled(batch_id), keys.done(batch_id), keys.chunks(batch_id))
        return "cancel", names, (int(keys.OPEN_BATCH_LIFETIME * 1000), self._reason, *indexes)

    async def _settle(self, pages: AsyncIterator[Page]) -> None:
        """Give results to the jobs that no worker has, and to those whose worker says nothing."""
        for pause in _LOOKS:
            silent = await self._look(pages, is_final=False)
            if not silent:
                return
            await asyncio.sleep(pause)
            pages = self._open_jobs.named(silent)
        await self._look(pages, is_final=True)

    async def _look(self, pages: AsyncIterator[Page], *, is_final: bool) -> set[int]:
        """Settle what can be; returns the first jobs of the chunks whose workers have said nothing yet."""
        silent = set[int]()
        async for page in pages:
            shares = [self._wanted(chunk) for chunk in await self._open_jobs.find(page)]
            known = await self._known([chunk.holder(self._batch_id, job) for chunk, _, held in shares for job in held])
            to_settle = []
            for chunk, waiting, held in shares:
                unheard = [job for job in held if chunk.holder(self._batch_id, job) not in known]
                if unheard and not is_final:
                    silent.add(chunk.first)
                    unheard = []
                to_settle.append(Share(chunk, waiting, unheard))
            await self._settlement.settle(to_settle)
        return silent

    def _wanted(self, chunk: OpenChunk) -> Share:
        """Tell which of a chunk's open jobs are to be cancelled."""
        if self._indexes is None:
            return Share(chunk, chunk.waiting, chunk.held)
        waiting, held = ([job for job in jobs if job in self._indexes] for jobs in (chunk.waiting, chunk.held))
        return Share(chunk, waiting, held)

    async def _known(self, holders: Iterable[str]) -> frozenset[str]:
        """Find out which workers know of the decision, by the chunks that they hold."""
        asked, key = list(dict.fromkeys(holders)), keys.heard(self._batch_id)
        if not asked:
            return frozenset()
        with naming(key):
            heard = await self._redis.hmget(key, asked)  # type: ignore[misc]  # typed for both clients
        return frozenset(name for name, version in zip(asked, heard, strict=True) if int(version or 0) >= self._version)

    def _ending(self, is_held: bool) -> dict[str, Any]:  # noqa: FBT001  # a Settlement's
        return {"status": "cancelled", "reason": self._reason}

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        types = {**types_of(self._batch_id), keys.cancelled(self._batch_id): "hash"}
        try:
            return await self._scripts.run_all(calls)
        except ResponseError as error:
            raise await find_spoilt(self._redis, error, types) or error from None
