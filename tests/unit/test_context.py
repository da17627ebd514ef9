"""`current_job()` inside a job, and outside of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from protocol.errors import StragglerError
from protocol.newjobs import NewJob
from workers.calling.context import CurrentJob, current_job, enter


class SomeRun:
    arguments_limit = 1000

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.cancelling = False
        self.outcome: str | None = None
        self.said: list[tuple[float | None, str]] = []

    def report(self, progress: float | None, note: str) -> None:
        self.said.append((progress, note))

    async def add(self, jobs: Sequence[NewJob]) -> list[int]:
        return list(range(len(jobs)))

    def add_sync(self, jobs: Sequence[NewJob]) -> list[int]:
        return list(range(len(jobs)))

    def current_job(self) -> CurrentJob:
        return CurrentJob(self, "b", 3, "key", 2)


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(StragglerError, match="outside a job"):
        current_job()


async def test_each_task_has_its_own() -> None:
    async def look(deadline: float) -> CurrentJob:
        enter(SomeRun(deadline))
        await asyncio.sleep(0)
        return await asyncio.create_task(ask())

    async def ask() -> CurrentJob:
        return current_job()

    one, two = await asyncio.gather(look(1.0), look(2.0))
    assert (one.deadline, two.deadline) == (1.0, 2.0)
    with pytest.raises(StragglerError):
        current_job()


def test_remaining_time_follows_the_deadline_and_never_falls_below_zero() -> None:
    run = SomeRun(time.monotonic() - 5)
    job = run.current_job()
    assert job.remaining() == 0
    run.deadline += 10
    assert 4 < job.remaining() <= 5
    assert not job.cancelling
    run.cancelling = True
    assert job.cancelling


def test_it_says_which_job_it_is() -> None:
    job = SomeRun(0).current_job()
    assert (job.job_id, job.key, job.attempt) == ("b:3", "key", 2)
    assert repr(job) == "<job b:3, attempt 2>"


def test_a_heartbeat_reaches_its_run_until_that_has_ended() -> None:
    run = SomeRun(0)
    job = run.current_job()
    job.heartbeat()
    job.heartbeat(0.4, "page 4 of 10")
    run.outcome = "over"
    job.heartbeat(0.5)
    assert run.said == [(None, ""), (0.4, "page 4 of 10")]
