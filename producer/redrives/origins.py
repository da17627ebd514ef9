"""Which jobs of a batch are redriven: chosen by their results, and written down where their redrive will find them.

What is chosen is a string of 8 bytes for each job, in order of submission: its index in the parent, and the index of
the first job of the chunk that it travelled in, each a big-endian uint32. So the n-th job of a redrive tells where it
comes from in one read, and a redrive that was cut off goes on with the very same jobs, whatever has become of the
parent. Nothing is held in memory but two bits for each job of the parent.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from producer.bits import Bits
from producer.collect import ENTRIES_A_READ, order
from producer.records import START, read_page
from producer.spoilt import naming
from protocol import keys
from protocol.batches import STATUSES
from protocol.chunks import LARGEST_CHUNK, decode_chunk
from protocol.connection import ArqRedis
from protocol.errors import OptionError, ProtocolError
from protocol.results import Result

# What has succeeded is not kept: nothing is left of it to redrive.
UNSUCCESSFUL = tuple(status for status in STATUSES if status != "success")
# Stragglers: those that a longer timeout, or another worker, may help.
STRAGGLERS = ("timeout", "lost")

# Chunks in one reply: each holds up to 1,000 jobs or about 1 MiB.
CHUNKS_A_PAGE = 8
# Jobs whose places are written or read in one command: 64 KiB.
PLACES_A_PAGE = 8192
# A selection that no redrive was begun with, as its producer has died, is forgotten after this time, s.
_SELECTION_LIFETIME = 3600.0

_PLACE = struct.Struct(">II")


@dataclass(frozen=True)
class Selection:
    """Which results' jobs are redriven: those that have one of the statuses, and an index and a result as asked for.

    Args:
        statuses: Those of unsuccessful jobs.
        indexes: None for any.
        where: None for any; what it says is true or false of a result.
    """

    statuses: frozenset[str]
    indexes: Bits | None = None
    where: Callable[[Result[Any]], Any] | None = None

    @classmethod
    def of(
        cls,
        statuses: Iterable[str] | str | None,
        indexes: Iterable[int] | None,
        where: Callable[[Result[Any]], Any] | None,
    ) -> Selection:
        """Make a selection of what a caller gave.

        Raises:
            OptionError: If a status or an index cannot be.
        """
        given = (statuses,) if isinstance(statuses, str) else statuses
        if given is None:
            given = STRAGGLERS if indexes is None and where is None else UNSUCCESSFUL
        chosen = frozenset(given)
        for status in sorted(chosen - set(UNSUCCESSFUL), key=str):
            raise OptionError(f"jobs of status {status!r} cannot be redriven: use {', '.join(UNSUCCESSFUL)}")
        return cls(chosen, None if indexes is None else Bits(_checked(indexes)), where)

    def takes(self, result: Result[Any]) -> bool:
        """Whether a result's job is redriven."""
        if result.status not in self.statuses or (self.indexes is not None and result.index not in self.indexes):
            return False
        return self.where is None or bool(self.where(result))


def _checked(indexes: Iterable[int]) -> Iterator[int]:
    for index in indexes:
        if not isinstance(index, int) or not 0 <= index < 1 << 32:
            raise OptionError(f"index {index!r} cannot be: a job's index is its place in its batch, from 0")
        yield index


async def write_selection(redis: ArqRedis, batch_id: str, selection: Selection, key: str) -> None:
    """Choose a batch's jobs by the results that are recorded by now, and write their places to a key.

    Raises:
        ProtocolError: If a result or a chunk cannot be read, or the chunk of a chosen job is gone.
    """
    chosen = await _choose(redis, batch_id, selection)
    firsts = await _find_chunks(redis, batch_id, chosen)
    places, at = find_places(chosen, firsts), 0
    while page := list(islice(places, PLACES_A_PAGE)):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.setrange(key, at * _PLACE.size, b"".join(_PLACE.pack(*place) for place in page))
            pipe.pexpire(key, int(_SELECTION_LIFETIME * 1000))
            await pipe.execute()
        at += len(page)


async def read_places(redis: ArqRedis, batch_id: str, at: int, count: int) -> list[tuple[int, int]]:
    """Read where some jobs of a redrive come from: index in the parent, first index of the chunk there.

    Raises:
        ProtocolError: If the key is not ours, or does not hold so many.
    """
    key = keys.origins(batch_id)
    with naming(key):
        data = await redis.getrange(key, at * _PLACE.size, (at + count) * _PLACE.size - 1)
    if len(data) != count * _PLACE.size:
        raise ProtocolError(key, f"{len(data):,} bytes stand there for {count:,} jobs from {at:,} on")
    return list(_PLACE.iter_unpack(data))


async def _choose(redis: ArqRedis, batch_id: str, selection: Selection) -> Bits:
    """Choose jobs; a batch that goes on is looked at as far as it is now."""
    chosen, at = Bits(), START
    with naming(keys.results(batch_id)):
        newest = await redis.xrevrange(keys.results(batch_id), count=1)
    last = order(newest[0][0].decode()) if newest else order(START)
    while order(at) < last:
        page = await read_page(redis, batch_id, at, ENTRIES_A_READ)
        for record in page.records:
            for _, result in record.facts.others:  # those that succeeded are never chosen
                if selection.takes(result):
                    chosen.add(result.index)
        if page.is_last or not page.records:
            break
        at = page.records[-1].entry
    return chosen


async def _find_chunks(redis: ArqRedis, batch_id: str, chosen: Bits) -> Bits:
    """Find the chunks of the chosen jobs; returns the first index of each.

    Raises:
        ProtocolError: If one of these cannot be read, or is not there.
    """
    key, firsts, covered, unreadable = keys.chunks(batch_id), Bits(), 0, None
    if not chosen:
        return firsts
    async for first, data in scan_chunks(redis, batch_id):
        if first in firsts or not chosen.within(first, first + LARGEST_CHUNK):
            continue
        try:
            count = len(decode_chunk(first, data, key))
        except ProtocolError as error:
            unreadable = error  # it may hold none of them
        else:
            here = len(chosen.within(first, first + count))
            covered += here
            if here:
                firsts.add(first)
    if covered != len(chosen):
        left = len(chosen) - covered
        raise unreadable or ProtocolError(key, f"{left:,} of the {len(chosen):,} jobs to redrive are in no chunk there")
    return firsts


async def scan_chunks(redis: ArqRedis, batch_id: str) -> AsyncIterator[tuple[int, bytes]]:
    """Page through a batch's chunks, in no order; one may come twice."""
    key, cursor = keys.chunks(batch_id), 0
    while True:
        with naming(key):
            cursor, page = await redis.hscan(key, cursor, count=CHUNKS_A_PAGE)
        for field, data in page.items():
            if field.isdigit() and len(field) < 11:
                yield int(field), data
        if cursor == 0:
            return


def find_places(chosen: Bits, firsts: Bits) -> Iterator[tuple[int, int]]:
    """Say for each chosen job which chunk it is in: each is in the last one that begins at it or before it."""
    coming = iter(firsts)
    first, following = 0, next(coming, None)
    for index in chosen:
        while following is not None and following <= index:
            first, following = following, next(coming, None)
        yield index, first
