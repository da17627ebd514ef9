"""Read a batch's results from its stream as they are recorded, by blocking reads, never by polling.

A cursor is a stream id, or a stream id and how many results of the entry after it were taken: `1700000000000-0+3`. It
is all that a collector needs to go on where another stopped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from producer.spoilt import naming
from producer.watch import Watch
from protocol import keys
from protocol.connection import ArqRedis
from protocol.entries import decode_entry
from protocol.errors import OptionError, ProtocolError
from protocol.results import Result

Entry: TypeAlias = tuple[bytes, dict[bytes, bytes]]
WhenTaken: TypeAlias = Callable[[str], Awaitable[None]]

# Entries in one read: each holds up to 256 results (1,000 in embedded mode) or about 1 MiB.
ENTRIES_A_READ = 16

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
    redis: ArqRedis,
    batch_id: str,
    cursor: Cursor,
    watch: Watch,
    timeout: float | None = None,
    when_taken: WhenTaken | None = None,
) -> AsyncGenerator[Result[Any], None]:
    """Yield each result after the cursor once, in order of recording, until the batch is complete; moves the cursor.

    Args:
        redis: Where the batch is.
        batch_id: Its id.
        cursor: Where to begin.
        watch: Looks after the batch while nothing comes.
        timeout: Longest time in all, s.
        when_taken: Called before each wait, when all results that there are have been taken, with the last one's entry.

    Raises:
        TimeoutError: If the time is up before the last result.
        BatchNotFoundError: If there is no such batch; BatchLostError, if there was.
        ProtocolError: If a key or an entry is not ours.
    """
    async with aclosing(_pages(redis, batch_id, cursor, watch, timeout, when_taken)) as pages:
        async for entries in pages:
            for result in _take(entries, batch_id, cursor):
                yield result


async def read_groups(
    redis: ArqRedis,
    batch_id: str,
    cursor: Cursor,
    watch: Watch,
    timeout: float | None = None,
    when_taken: WhenTaken | None = None,
) -> AsyncGenerator[list[Result[Any]], None]:
    """Yield results as `read` does, those of one entry at a time; the cursor moves by entries."""
    async with aclosing(_pages(redis, batch_id, cursor, watch, timeout, when_taken)) as pages:
        async for entries in pages:
            for entry_id, entry in entries:
                if b"end" in entry:
                    return
                group = decode_entry(batch_id, entry, keys.results(batch_id))[cursor.taken :]
                cursor.entry, cursor.taken = entry_id.decode(), 0
                yield group


async def _pages(
    redis: ArqRedis,
    batch_id: str,
    cursor: Cursor,
    watch: Watch,
    timeout: float | None,
    when_taken: WhenTaken | None,
) -> AsyncGenerator[list[Entry], None]:
    """Yield the entries after the cursor, some at a time, as they are recorded; who takes them moves the cursor."""
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    async with asyncio.timeout_at(deadline):
        await watch.begin()
    while True:
        async with asyncio.timeout_at(deadline):
            if when_taken is not None and not await _next_entries(redis, keys.results(batch_id), cursor, None):
                await when_taken(cursor.entry)
            entries = await _wait_for_entries(redis, keys.results(batch_id), cursor, watch)
        yield entries
        if _have_end(entries):
            return


async def read_present(
    redis: ArqRedis, batch_id: str, cursor: Cursor, longest_reply: float | None = None
) -> AsyncIterator[Result[Any]]:
    """Yield each result after the cursor that is recorded by now, and wait for none; moves the cursor.

    Raises:
        TimeoutError: If one of Redis' replies takes longer than `longest_reply`, s.
    """
    key = keys.results(batch_id)
    async with asyncio.timeout(longest_reply):
        with naming(key):
            last = await redis.xrevrange(key, count=1)
    # No further: workers may record faster than we read.
    while last and order(cursor.entry) < order(last[0][0].decode()):
        async with asyncio.timeout(longest_reply):
            entries = await _next_entries(redis, key, cursor, None)
        if not entries:
            return
        for result in _take(entries, batch_id, cursor):
            yield result
        if _have_end(entries):
            return


async def _wait_for_entries(redis: ArqRedis, key: str, cursor: Cursor, watch: Watch) -> list[Entry]:
    """Wait for entries; there are none, or the last of all is among them, when the batch is complete."""
    while True:
        if watch.is_due:
            await watch.look()
        block = watch.block()
        entries = await _next_entries(redis, key, cursor, block)
        if entries:
            return entries
        if block is None:
            return await _last_entry(redis, key, cursor)
        await watch.look()


async def _next_entries(redis: ArqRedis, key: str, cursor: Cursor, block: float | None) -> list[Entry]:
    block_ms = None if block is None else max(1, round(block * 1000))
    with naming(key):
        streams = await redis.xread({key: cursor.entry}, count=ENTRIES_A_READ, block=block_ms)
    return streams[0][1] if streams else []


async def _last_entry(redis: ArqRedis, key: str, cursor: Cursor) -> list[Entry]:
    """Find the end before the cursor (a caller may hand us any).

    Raises:
        ProtocolError: If it is not there, though the batch is complete.
    """
    last: list[Entry] = await redis.xrevrange(key, count=1)
    if not last or order(last[0][0].decode()) > order(cursor.entry):
        raise ProtocolError(key, "the batch is complete, and its results are not all there")
    return [(last[0][0], {b"end": b""})]


def _take(entries: list[Entry], batch_id: str, cursor: Cursor) -> Iterator[Result[Any]]:
    for entry_id, entry in entries:
        if b"end" in entry:
            return
        for result in decode_entry(batch_id, entry, keys.results(batch_id))[cursor.taken :]:
            cursor.taken += 1
            yield result
        cursor.entry, cursor.taken = entry_id.decode(), 0


def _have_end(entries: list[Entry]) -> bool:
    return any(b"end" in entry for _, entry in entries)


def order(entry_id: str) -> tuple[int, ...]:
    """Say where an entry stands in its stream, to compare."""
    return tuple(int(part) for part in entry_id.split("-"))
