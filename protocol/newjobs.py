"""Jobs that are to be added to an open batch, as they travel; light, as each process of a job imports it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from protocol.errors import OptionError, UsageError
from protocol.jobs import JobSpec, encode_job

Jobs: TypeAlias = Iterable[JobSpec[Any]] | AsyncIterable[JobSpec[Any]] | JobSpec[Any]

# What one call may carry.
_JOBS_A_CALL = 1000
_BYTES_A_CALL = 1 << 20


class NewJob(NamedTuple):
    """A job that is to be added.

    Args:
        key: What people call it, if it is known by that; else None.
        text: The job, as JSON.
    """

    key: str | None
    text: bytes


def encode_new(jobs: Iterable[JobSpec[Any]], limit_bytes: int, *, unique: bool, first: int = 0) -> Iterator[NewJob]:
    """Write jobs that are to be added.

    Args:
        jobs: The jobs.
        limit_bytes: Longest arguments of one job, bytes of JSON.
        unique: Whether each is known by its key.
        first: The number of the first of them, for messages.

    Raises:
        UsageError: If a job cannot be; names it by its place among these.
    """
    for number, job in enumerate(jobs, first):
        if not isinstance(job, JobSpec):
            raise UsageError(
                f"job {number} is {job!r}, not a JobSpec: make one with your_job.spec(...) or JobSpec(...)"
            )
        if unique and job.key is None:
            raise OptionError(
                f"job {number}, of {job.function!r}, has no key, and with unique=True jobs are told apart by that: "
                "your_job.spec(..., key=...)"
            )
        try:
            yield NewJob(job.key if unique else None, encode_job(job, limit_bytes))
        except UsageError as error:
            raise type(error)(f"job {number}: {error}") from None


def cut(jobs: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    """Cut jobs into what one call may carry."""
    portion: list[NewJob] = []
    size = 0
    for new in jobs:
        if portion and (len(portion) == _JOBS_A_CALL or size + len(new.text) > _BYTES_A_CALL):
            yield portion
            portion, size = [], 0
        portion.append(new)
        size += len(new.text)
    if portion:
        yield portion


async def portions(jobs: Jobs, limit_bytes: int, *, unique: bool) -> AsyncIterator[list[NewJob]]:
    """Write jobs, and cut them into what one call may carry; those of an async source go one by one, as they come.

    Raises:
        UsageError: If a job cannot be; those before its portion are on their way by then.
    """
    if isinstance(jobs, AsyncIterable):
        number = 0
        async for job in jobs:
            yield list(encode_new([job], limit_bytes, unique=unique, first=number))
            number += 1
        return
    for portion in cut(encode_new([jobs] if isinstance(jobs, JobSpec) else jobs, limit_bytes, unique=unique)):
        yield portion


def name_by_key(new: NewJob) -> str:
    """Name a job by its key; without one it has no name."""
    return "" if new.key is None else f"={new.key}"
