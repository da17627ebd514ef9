"""`max_failures`: past it a batch stops, what waits is cancelled, what runs may finish."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol.errors import BatchClosedError, OptionError
from straggler import CancelledResult, JobSpec, job
from tests.conftest import PATIENCE, StartWorker, until_running
from tests.jobs import echo, fail, hang, nap, square, wait_for_file


async def one_by_one(*jobs: JobSpec[Any]) -> AsyncIterator[JobSpec[Any]]:
    """Yield jobs as a stream, which travels as one chunk."""
    for spec in jobs:
        yield spec


@job
async def fail_slowly() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("no")


async def ends(batch: Batch[Any]) -> list[str]:
    return [result.status for result in await batch.results()]


async def test_past_so_many_failures_the_rest_is_cancelled(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        jobs = [fail.spec("no"), square.spec(1), hang.spec(timeout=0.05), fail.spec("no"), *nap.map([0.005] * 600)]
        batch = await producer.submit(one_by_one(*jobs), max_failures=2)
        found = await ends(batch)
        assert found[:4] == ["failure", "success", "timeout", "failure"]
        cancelled = [result for result in await batch.results() if isinstance(result, CancelledResult)]
        assert len(cancelled) > 300, "but for those that have run before the worker heard of it"
    status = await batch.status()
    assert re.fullmatch(r"max_failures 2: 3 of \d+ jobs did not succeed", status.stopped or "")
    assert {result.reason for result in cancelled} == {status.stopped}
    assert status.cancelled == len(cancelled)


async def test_just_so_many_failures_are_borne(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")] * 3 + [square.spec(1)] * 20, max_failures=3)
        assert await ends(batch) == ["failure"] * 3 + ["success"] * 20
        assert (await batch.status()).stopped is None


async def test_none_is_borne_with_0(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        batch = await producer.submit(
            one_by_one(square.spec(1), fail.spec("no"), *nap.map([0.005] * 510)), max_failures=0
        )
        assert (await ends(batch)).count("cancelled") >= 256


async def test_what_runs_may_finish(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=2):
        jobs: list[JobSpec[Any]] = [wait_for_file.spec(door), fail.spec("no"), *[hang.spec()] * 5]
        batch = await producer.submit(one_by_one(*jobs), max_failures=0)
        found = []
        async for result in batch.as_completed():
            found.append((result.index, result.status))
            if len(found) >= 5:
                door.touch()
            if len(found) == 6:
                break
        await batch.cancel()  # the one that took the slot of the failed one before that was known
        assert dict(found).get(0) == "success" or (await ends(batch))[0] == "success"
        assert (await ends(batch)).count("cancelled") == 5


async def test_failures_that_run_again_do_not_count(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no"), square.spec(2)], max_failures=1, retries=3, backoff=0.01)
        assert await ends(batch) == ["failure", "success"]


async def test_what_is_cancelled_does_not_count(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit(square.map(range(10)), max_failures=0)
    await batch.cancel(range(5))
    async with worker():
        assert await ends(batch) == ["cancelled"] * 5 + ["success"] * 5


@pytest.mark.parametrize(
    ("failures", "is_stopped"), [(lambda n: n % 10 == 0, False), (lambda n: n % 5 == 0, True)], ids=["10 %", "20 %"]
)
async def test_a_share_is_judged_by_what_has_its_result(
    producer: Producer, worker: StartWorker, failures: Callable[[int], bool], is_stopped: bool
) -> None:
    async with worker(concurrency=1):
        jobs = [fail_slowly.spec() if failures(number) else nap.spec(0.005) for number in range(400)]
        batch = await producer.submit(one_by_one(*jobs), max_failures=0.15)
        found = await ends(batch)
        assert ((await batch.status()).stopped is not None) is is_stopped
    assert ("cancelled" in found) is is_stopped
    assert found.count("cancelled") <= 300, "before 100 results it would judge by chance"


async def test_the_share_of_a_small_batch_is_judged_by_its_half(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        jobs = [fail.spec("no")] * 5 + [square.spec(1)] * 55
        batch = await producer.submit(jobs, max_failures=0.2)
        assert (await ends(batch)).count("cancelled") == 0, "5 of 5 at first, but 5 of 30 at its half"
        batch = await producer.submit([fail_slowly.spec()] * 60, max_failures=0.2)
        found = await ends(batch)
        assert "cancelled" in found
        assert found.count("failure") >= 30, "before that it would judge by chance"


async def test_a_stopped_batch_ends_without_any_worker(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        batch = await producer.submit(one_by_one(*[fail.spec("no")] * 2, *[hang.spec()] * 510), max_failures=1)
        async with asyncio.timeout(PATIENCE):
            while (await batch.status()).stopped is None:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.01)
    assert set((await ends(batch))[2:]) == {"cancelled"}


async def test_an_open_batch_takes_no_more_jobs_once_it_is_stopped(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch(max_failures=0)
        await batch.add([fail.spec("no"), echo.spec("x")])
        await batch.results()
        with pytest.raises(BatchClosedError, match="stopped"):
            await batch.add([echo.spec("y")])


async def test_a_submission_is_told_that_its_batch_was_stopped(producer: Producer, worker: StartWorker) -> None:
    async def endless() -> AsyncIterator[JobSpec[Any]]:
        while True:
            yield fail.spec("no")
            await asyncio.sleep(0.1)

    async with worker():
        with pytest.raises(BatchClosedError, match="stopped"):
            await producer.submit(endless(), batch_id="b", max_failures=2)
        assert "failure" in await ends(await producer.attach("b"))


@pytest.mark.parametrize("value", [-1, 0.0, 1.0, 1.5, -0.1, True, "10", "many", float("nan")])
async def test_a_limit_that_cannot_be_is_refused(producer: Producer, value: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^batch option max_failures: use a number of jobs from 0, such as 10"
    ) as told:
        await producer.submit([], max_failures=value)
    assert "\n" not in str(told.value)


async def test_a_stop_reaches_what_waits_in_another_workers_chunk(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=1):
        batch = await producer.open_batch(max_failures=0)
        await batch.add(one_by_one(wait_for_file.spec(door)))
        await until_running(batch, 1)
        await batch.add([square.spec(1)])
        async with worker(concurrency=1):
            await batch.add([fail.spec("no")])
            async for result in batch.as_completed():
                if result.index == 2:
                    break
            door.touch()
            assert (await ends(batch))[0] == "success"
