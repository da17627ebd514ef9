"""Cut jobs into chunks, as they come: nothing is held but the chunk that is being made.

Jobs that differ in nothing but their positional arguments are written a chunk at a time; all others one by one, which
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

from protocol.chunks import CHUNK_BYTES, LARGEST_AMONG_WORKERS, encode_calls, encode_jobs
from protocol.errors import UsageError
from protocol.jobs import JobSpec, JobSpecs, encode_job

Jobs: TypeAlias = Iterable[JobSpec[Any]] | AsyncIterable[JobSpec[Any]]

# A slow source's jobs wait this long for company, s, before they travel as a smaller chunk.
_LINGER = 0.05
# A steady source's jobs are on their way after this time, s, however few have come.
LONGEST_WAIT = 0.25
# What `map` gives a JobSpec.
_GIVEN_BY_MAP = {"function", "args"}


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


class _Calls(Chunk):
    """A chunk of jobs that differ in nothing but their positional arguments."""

    def __init__(self, first: int, function: str, arguments: list[tuple[Any, ...]], limit_bytes: int) -> None:
        super().__init__(first)
        self._function = function
        self._arguments = arguments
        self._limit_bytes = limit_bytes
        self._encoded = encode_calls(function, arguments, limit_bytes)

    @property
    def can_be(self) -> bool:
        return self._encoded is not None

    @property
    def count(self) -> int:
        return len(self._arguments)

    def skip(self, count: int) -> None:
        del self._arguments[:count]
        self.first += count
        self._encoded = encode_calls(self._function, self._arguments, self._limit_bytes)

    def encode(self) -> bytes:
        assert self._encoded is not None  # noqa: S101  # else it would not be sent
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
    arguments = some
    if function is None:
        function, arguments = _alike(some)
    if function is not None:
        calls = _Calls(first, function, arguments, min(limit_bytes, CHUNK_BYTES))
        if calls.can_be:
            yield calls
            return
        some = [JobSpec(function=function, args=args) for args in arguments]
    chunk = Chunk(first)
    for job in some:
        chunk.add(job, limit_bytes)
        if chunk.is_full:
            yield chunk
            chunk = Chunk(chunk.first + chunk.count)
    if chunk.count:
        yield chunk


def _alike(jobs: Sequence[Any]) -> tuple[str | None, list[tuple[Any, ...]]]:
    """Return function and arguments of jobs that differ in nothing but these; no function where they do."""
    function = getattr(jobs[0], "function", None)
    for job in jobs:
        if not isinstance(job, JobSpec) or job.function != function or not _is_plain(job):
            return None, []
    return function, [job.args for job in jobs]


def _is_plain(job: JobSpec[Any]) -> bool:
    # The first says the same in half the time, of the jobs that `map` makes.
    return job.model_fields_set == _GIVEN_BY_MAP or (not job.kwargs and job.key is None and job.has_no_clock)


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
