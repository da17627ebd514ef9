"""Read a batch's results from its stream as they are recorded, by blocking reads, never by polling.

A cursor is a stream id, or a stream id and how many results of the entry after it were taken: `1700000000000-0+3`. It
is all that a collector needs to go on where another stopped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocol import keys
from protocol.connection import ArqRedis
from protocol.errors import BatchNotFoundError, OptionError
from protocol.results import Result, decode_entry

Entry: TypeAlias = tuple[bytes, dict[bytes, bytes]]

# Entries in one read: each holds up to 256 results or about 1 MiB.
_ENTRIES_A_READ = 16
# A blocked read returns this often, s, to find out whether the batch is still there.
_LONGEST_BLOCK = 5.0

_CURSOR = re.compile(r"[0-9]{1,19}-[0-9]{1,19}(\+[0-9]{1,9})?")


@dataclass(slots=True)
class Cursor:
    """Where a collector is: after this entry, and after so many results of the next."""

    entry: str = "0-0"
    taken: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str()` of a cursor wrote.

        Raises:
            OptionError: If it is none.
        """
        if not _CURSOR.fullmatch(text):
            raise OptionError(f"cursor {text!r} cannot be: it is what Batch.cursor was, like '1700000000000-0+3'")
        entry, _, taken = text.partition("+")
        return cls(entry, int(taken or 0))

    def __str__(self) -> str:
        return f"{self.entry}+{self.taken}" if self.taken else self.entry


async def read(
    redis: ArqRedis, batch_id: str, cursor: Cursor, timeout: float | None = None
) -> AsyncIterator[Result[Any]]:
    """Yield each result after the cursor once, in order of recording, until the batch is complete; moves the cursor.

    Args:
        redis: Where the batch is.
        batch_id: Its id.
        cursor: Where to begin.
        timeout: Longest time in all, s.

    Raises:
        TimeoutError: If the time is up before the last result.
        BatchNotFoundError: If the batch is gone.
        ProtocolError: If an entry is not ours.
    """
    key = keys.results(batch_id)
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    while True:
        async with asyncio.timeout_at(deadline):
            entries = await _next_entries(redis, key, cursor)
            if not entries and await _is_over(redis, batch_id, cursor):
                return
        for result in _take(entries, batch_id, cursor):
            yield result
        if _is_end(entries):
            return


async def read_present(redis: ArqRedis, batch_id: str, cursor: Cursor) -> AsyncIterator[Result[Any]]:
    """Yield each result after the cursor that is recorded already, and wait for none; moves the cursor."""
    while entries := await _next_entries(redis, keys.results(batch_id), cursor, block=False):
        for result in _take(entries, batch_id, cursor):
            yield result
        if _is_end(entries):
            return


async def _next_entries(redis: ArqRedis, key: str, cursor: Cursor, *, block: bool = True) -> list[Entry]:
    block_ms = int(_LONGEST_BLOCK * 1000) if block else None
    streams = await redis.xread({key: cursor.entry}, count=_ENTRIES_A_READ, block=block_ms)
    return streams[0][1] if streams else []


def _take(entries: list[Entry], batch_id: str, cursor: Cursor) -> Iterator[Result[Any]]:
    for entry_id, entry in entries:
        if b"end" in entry:
            return
        for result in decode_entry(batch_id, entry, keys.results(batch_id))[cursor.taken :]:
            cursor.taken += 1
            yield result
        cursor.entry, cursor.taken = entry_id.decode(), 0


def _is_end(entries: list[Entry]) -> bool:
    return bool(entries) and b"end" in entries[-1][1]


async def _is_over(redis: ArqRedis, batch_id: str, cursor: Cursor) -> bool:
    """Find out why nothing comes: the batch is gone, or the cursor stands behind the end (a caller may hand us one)."""
    if not await redis.exists(keys.batch(batch_id)):
        raise BatchNotFoundError(batch_id)
    last = await redis.xrevrange(keys.results(batch_id), count=1)
    return bool(last) and b"end" in last[0][1] and _order(last[0][0].decode()) <= _order(cursor.entry)


def _order(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))
