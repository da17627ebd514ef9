"""`Batch.wait`: what asyncio.wait does for tasks in one process, for a batch's jobs on many machines.

Results are read from the stream, each once, however many waits go over the same handle as the batch goes on: a wait for
the jobs that an earlier one left pending reads on where that one stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing, suppress
from copy import copy
from itertools import compress
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from producer.bits import Bits
from producer.collect import Cursor, read, read_present
from producer.watch import Watch
from protocol.connection import ArqRedis
from protocol.errors import OptionError, RedisUnavailableError
from protocol.results import Result

R = TypeVar("R")

ReturnWhen: TypeAlias = Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]

FIRST_COMPLETED = asyncio.FIRST_COMPLETED
FIRST_EXCEPTION = asyncio.FIRST_EXCEPTION
ALL_COMPLETED = asyncio.ALL_COMPLETED

# When the time is up, what is recorded by then is read, however much it is; a Redis that is away is not waited for any
# longer than this, s.
_LAST_LOOK = 1.0


class Waited(NamedTuple, Generic[R]):
    """What `Batch.wait` returns: results in order of completion, and the indexes of the jobs that have none yet."""

    done: list[Result[R]]
    pending: list[int]


class Waiting:
    """The waits over one handle of a batch.

    Args:
        redis: Where the batch is.
        batch_id: Its id.
        watch: Looks after it meanwhile.
    """

    def __init__(self, redis: ArqRedis, batch_id: str, watch: Watch) -> None:
        self._redis = redis
        self._batch_id = batch_id
        self._watch = watch
        # All results before the cursor were seen; of which jobs they are.
        self._cursor = Cursor()
        self._seen = Bits()

    async def wait(self, timeout: float | None, return_when: ReturnWhen, among: Collection[int] | None) -> Waited[Any]:
        """Wait; see `Batch.wait`."""
        if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
            raise OptionError(f"return_when={return_when!r}: use FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED")
        wanted = None if among is None else _checked(among)
        if wanted is not None and not wanted:
            return Waited([], [])
        # What was seen before stands behind us in the stream.
        is_new = wanted is not None and not any(index in self._seen for index in wanted)
        cursor = copy(self._cursor) if is_new else Cursor()
        done: list[Result[Any]] = []
        is_over = await self._collect(done, cursor, wanted, timeout, return_when)
        if not is_over and (wanted is None or len(done) < len(wanted)):
            await self._look(done, cursor, wanted)
        self._cursor = cursor
        return Waited(done, self._pending(done, wanted, is_over=is_over))

    async def _collect(
        self,
        done: list[Result[Any]],
        cursor: Cursor,
        wanted: set[int] | None,
        timeout: float | None,
        return_when: ReturnWhen,
    ) -> bool:
        """Collect results until enough are there or the time is up; returns whether the batch has no more."""
        with suppress(TimeoutError):
            async with aclosing(read(self._redis, self._batch_id, cursor, self._watch, timeout)) as results:
                async for result in results:
                    is_waited_for = self._take(result, wanted, done)
                    if is_waited_for and (_is_reached(return_when, result) or len(done) == len(wanted or ())):
                        return False
                return True
        return False

    async def _look(self, done: list[Result[Any]], cursor: Cursor, wanted: set[int] | None) -> None:
        """Collect what else is recorded by now, and learn how many jobs there are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await self._watch.status()
            async for result in read_present(self._redis, self._batch_id, cursor, _LAST_LOOK):
                self._take(result, wanted, done)
        if wanted is None and self._watch.total is None:
            raise RedisUnavailableError(
                f"Redis did not answer in time, so it cannot be told how far batch {self._batch_id!r} is; it goes on: "
                "wait again"
            )

    def _take(self, result: Result[Any], wanted: set[int] | None, done: list[Result[Any]]) -> bool:
        """Take note of a result; returns whether it is waited for."""
        index = result.index
        self._seen.add(index)
        if wanted is not None and index not in wanted:
            return False
        done.append(result)
        return True

    def _pending(self, done: list[Result[Any]], wanted: set[int] | None, *, is_over: bool) -> list[int]:
        if wanted is not None:
            left = sorted(wanted.difference(result.index for result in done))
            if left and is_over:
                raise OptionError(
                    f"batch {self._batch_id!r} has no job {left[0]}: give indexes that an earlier wait left"
                )
            return left
        total = self._watch.total or 0
        if is_over or len(done) >= total:
            return []
        is_open = bytearray(b"\1") * total
        for result in done:
            is_open[result.index : result.index + 1] = b"\0"
        return list(compress(range(total), is_open))


def _checked(among: Collection[int]) -> set[int]:
    for index in among:
        if not isinstance(index, int) or index < 0:
            raise OptionError(f"among={index!r}: give the indexes of jobs, from 0, as `pending` names them")
    return set(among)


def _is_reached(return_when: ReturnWhen, result: Result[Any]) -> bool:
    if return_when == FIRST_COMPLETED:
        return True
    return return_when == FIRST_EXCEPTION and result.status != "success"
