"""Cut jobs into chunks, as they come: nothing is held but the chunk that is being made.

Jobs of a kind, or of a few, are written a chunk at a time, as rows. Where these cannot be, they go one by one, which
tells what is wrong with which.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from operator import length_hint
from sys import getsizeof
from typing import Any, TypeAlias

from protocol.chunks import (
    CHUNK_BYTES,
    LARGEST_AMONG_WORKERS,
    cut_chunk,
    drop_jobs,
    encode_alike,
    encode_calls,
    encode_jobs,
)
from protocol.errors import UsageError
from protocol.jobs import JobSpec, JobSpecs, encode_job

Jobs: TypeAlias = Iterable[JobSpec[Any]] | AsyncIterable[JobSpec[Any]]

# A slow source's jobs wait this long for company, s, before they travel as a smaller chunk.
_LINGER = 0.05
# A steady source's jobs are on their way after this time, s, however few have come.
LONGEST_WAIT = 0.25


class Chunk:
    """A chunk on its way: the jobs from index `first` on, each as JSON."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.size = 0
        self._jobs: list[bytes] = []

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return len(self._jobs)

    @property
    def is_full(self) -> bool:
        """Whether its jobs are large enough together."""
        return self.size >= CHUNK_BYTES

    def add(self, job: JobSpec[Any], limit_bytes: int) -> None:
        """Add a job.

        Raises:
            UsageError: If it cannot be; names it by its index.
        """
        index = self.first + self.count
        if not isinstance(job, JobSpec):
            raise UsageError(f"job {index} is {job!r}, not a JobSpec: make one with your_job.spec(...) or JobSpec(...)")
        try:
            encoded = encode_job(job, limit_bytes)
        except UsageError as error:
            raise type(error)(f"job {index}: {error}") from None
        self.put(encoded)

    def put(self, encoded: bytes) -> None:
        """Add a job as it travels."""
        self._jobs.append(encoded)
        self.size += len(encoded)

    def skip(self, count: int) -> None:
        """Drop jobs from the front."""
        del self._jobs[:count]
        self.first += count

    def encode(self) -> bytes:
        """Write the jobs as they travel."""
        return encode_jobs(self._jobs)


class _Rows(Chunk):
    """A chunk of jobs that travel as rows, all written together."""

    def __init__(self, first: int, count: int, encoded: bytes) -> None:
        super().__init__(first)
        self._count = count
        self._encoded = encoded

    @property
    def count(self) -> int:
        return self._count

    def skip(self, count: int) -> None:
        self._count -= count
        self.first += count
        self._encoded = drop_jobs(self._encoded, count)

    def encode(self) -> bytes:
        return self._encoded


async def cut(jobs: Jobs, limit_bytes: int, most: int = LARGEST_AMONG_WORKERS) -> AsyncGenerator[Chunk, None]:
    """Cut jobs into chunks; those of a slow source leave as they come.

    Args:
        jobs: In the batch's order.
        limit_bytes: Longest arguments of one job, bytes of JSON.
        most: Jobs in one chunk at most; no more than 256 in those of a stream.

    Raises:
        UsageError: If a job cannot be; names it by its index.
    """
    if isinstance(jobs, AsyncIterable):
        async with aclosing(_cut_stream(jobs, limit_bytes)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    for chunk in _cut_iterable(jobs, limit_bytes, most):
        yield chunk


def _cut_iterable(jobs: Iterable[JobSpec[Any]], limit_bytes: int, most: int) -> Iterator[Chunk]:
    function = JobSpec[Any](function=jobs.function).function if isinstance(jobs, JobSpecs) else None
    source: Iterator[Any] = jobs.calls() if isinstance(jobs, JobSpecs) else iter(jobs)
    first = 0
    for job in source:
        # To estimate is a tenth of what a lone job costs until it is sent.
        count = min(most, _count_that_fits(function, job)) if length_hint(source, 1) else 1
        some = [job, *islice(source, count - 1)]
        for chunk in _cut_some(function, some, first, limit_bytes):
            yield chunk
            first = chunk.first + chunk.count


def _count_that_fits(function: str | None, job: Any) -> int:
    """Estimate how many jobs like this one make a chunk; what is read ahead is held in memory."""
    arguments = job if function else (job.args, job.kwargs) if isinstance(job, JobSpec) else ()
    try:
        size = sum(getsizeof(argument) for argument in _leaves(arguments))
    except RecursionError:  # a circle, or too deep: no JSON
        return 1
    return max(1, CHUNK_BYTES // (1 + size))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for inner in value:
        yield from _leaves(inner)


def _cut_some(function: str | None, some: list[Any], first: int, limit_bytes: int) -> Iterator[Chunk]:
    """Make one chunk of jobs, or of calls of a function, where their size allows it, else several."""
    encoded = encode_alike(some) if function is None else encode_calls(function, some)
    pieces = None if encoded is None else [(len(some), encoded)]
    if encoded is not None and len(encoded) > min(limit_bytes, CHUNK_BYTES):
        pieces = cut_chunk(encoded, CHUNK_BYTES, limit_bytes)
    if pieces is None:
        jobs = some if function is None else [JobSpec(function=function, args=args) for args in some]
        yield from _cut_one_by_one(jobs, first, limit_bytes)
        return
    for count, piece in pieces:
        yield _Rows(first, count, piece)
        first += count


def _cut_one_by_one(some: Sequence[Any], first: int, limit_bytes: int) -> Iterator[Chunk]:
    chunk = Chunk(first)
    for job in some:
        chunk.add(job, limit_bytes)
        if chunk.is_full:
            yield chunk
            chunk = Chunk(chunk.first + chunk.count)
    if chunk.count:
        yield chunk


async def _cut_stream(jobs: AsyncIterable[JobSpec[Any]], limit_bytes: int) -> AsyncGenerator[Chunk, None]:
    coming: asyncio.Queue[JobSpec[Any] | None] = asyncio.Queue(LARGEST_AMONG_WORKERS)
    pump = asyncio.create_task(_pump(jobs, coming))
    try:
        chunk, due = Chunk(0), 0.0
        while (job := await coming.get()) is not None:
            due = due if chunk.count else time.monotonic() + LONGEST_WAIT
            chunk.add(job, limit_bytes)
            is_full = chunk.count >= LARGEST_AMONG_WORKERS or chunk.is_full or time.monotonic() > due
            if coming.empty() and not is_full:
                await asyncio.sleep(_LINGER)
            if is_full or coming.empty():
                yield chunk
                chunk = Chunk(chunk.first + chunk.count)
        if chunk.count:
            yield chunk
        await pump  # raises what the source raised
    finally:
        pump.cancel()
        while not coming.empty():  # a full queue would hold the pump, which puts down its end mark, for ever
            coming.get_nowait()
        await asyncio.wait({pump})


async def _pump(jobs: AsyncIterable[JobSpec[Any]], into: asyncio.Queue[JobSpec[Any] | None]) -> None:
    try:
        async for job in jobs:
            await into.put(job)
    finally:
        await into.put(None)
