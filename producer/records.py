"""Read a batch's recorded results a page at a time, or single ones by where they stand; wait for none of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from producer.spoilt import naming, raise_named
from protocol import keys
from protocol.connection import ArqRedis
from protocol.entries import decode_entry
from protocol.facts import Facts, decode_facts
from protocol.results import Result

START = "0-0"
"""Before the first entry of a stream."""


class Position(NamedTuple):
    """Where a result stands: an entry of the stream, and which of its results."""

    entry: str
    offset: int

    @property
    def recorded_at(self) -> float:
        """When it was recorded, Unix s."""
        return int(self.entry.partition("-")[0]) / 1000


class Record(NamedTuple):
    """One entry of a batch's stream: its id, which begins with the time at which it was recorded, ms; what it tells."""

    entry: str
    facts: Facts


class Page(NamedTuple):
    """Some entries of a batch's stream in a row, and whether the batch's end is among them."""

    records: list[Record]
    is_last: bool


async def read_page(redis: ArqRedis, batch_id: str, after: str, count: int) -> Page:
    """Read the entries after this one that are recorded already, at most so many.

    Raises:
        ProtocolError: If the stream or an entry is not ours.
    """
    key = keys.results(batch_id)
    with naming(key):
        streams = await redis.xread({key: after}, count=count)
    entries = streams[0][1] if streams else []
    return Page(
        [Record(name.decode(), decode_facts(batch_id, entry, key)) for name, entry in entries if b"end" not in entry],
        any(b"end" in entry for _, entry in entries),
    )


async def read_entries(redis: ArqRedis, batch_id: str, entries: Iterable[str]) -> dict[str, list[Result[Any]]]:
    """Read single entries, in one round trip; what is gone is left out.

    Raises:
        ProtocolError: If the stream or an entry is not ours.
    """
    key = keys.results(batch_id)
    async with redis.pipeline(transaction=False) as pipe:
        for entry in entries:
            pipe.xrange(key, entry, entry, count=1)
        replies = await pipe.execute(raise_on_error=False)
    found = {}
    for reply in replies:
        raise_named(reply, key)
        for name, entry in reply:
            found[name.decode()] = decode_entry(batch_id, entry, key)
    return found


async def read_results(redis: ArqRedis, batch_id: str, positions: Sequence[Position]) -> list[Result[Any] | None]:
    """Read results by where they stand; None where one is gone.

    Raises:
        ProtocolError: If the stream or an entry is not ours.
    """
    if not positions:
        return []
    entries = await read_entries(redis, batch_id, sorted({position.entry for position in positions}))
    return [_take(entries.get(entry, []), offset) for entry, offset in positions]


def _take(results: Sequence[Result[Any]], offset: int) -> Result[Any] | None:
    return results[offset] if offset < len(results) else None
