"""`extend`: a batch gets more time, its jobs that run and its collectors with it, and what is over stays over."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchEndedError, BatchLostError, OptionError
from straggler import TimeoutResult, current_job, job
from tests.conftest import StartWorker, until, until_running
from tests.jobs import hang, nap, square
from tests.rough_jobs import sleep_on

LONG = 60.0


@job
def plain_remaining_after(seconds: float) -> float:
    time.sleep(seconds)
    return current_job().remaining()


@job
async def beat_on(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        current_job().heartbeat()
        await asyncio.sleep(0.05)


@job(isolation="thread")
def sleep_in_thread(seconds: float) -> None:
    time.sleep(seconds)


async def test_jobs_that_run_have_the_new_time_on_all_workers(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=2), worker(concurrency=2):
        specs = [nap.spec(3.0), sleep_in_thread.spec(3.0), sleep_on.spec(0.5), nap.spec(3.1)]
        batch: Any = await producer.submit(specs, deadline=2.5)
        await until_running(batch, 4)
        await batch.extend(deadline=LONG)
        assert [result.status for result in await batch.results()] == ["success"] * 4
    assert batch.options.deadline == pytest.approx(LONG, abs=2)


async def test_what_waits_starts_after_the_old_deadline(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        batch: Any = await producer.submit([nap.spec(3.0), square.spec(2)], deadline=2.5)
        await until_running(batch, 1)
        await batch.extend(deadline=LONG)
        assert [result.status for result in await batch.results()] == ["success"] * 2


async def test_a_collector_waits_on_past_the_old_deadline(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit([square.spec(2)], deadline=0.5)  # nobody runs it yet
    collecting = asyncio.create_task(batch.results())
    await (await producer.attach(batch.id)).extend(deadline=LONG)
    status = await batch.status()
    assert status.deadline is not None
    await until(lambda: producer.clock.now() > status.created_at + 0.8)
    assert not collecting.done()
    async with worker():
        assert [result.status for result in await collecting] == ["success"]


async def test_a_timeout_at_the_new_deadline_names_it(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1) as started:
        batch: Any = await producer.submit([hang.spec(), square.spec(2)], deadline=2.5)
        await until(lambda: started.crew.slots.used == 1)
        await batch.extend(deadline=3.0)
        results = await batch.results()
    assert batch.options.deadline > 2.9
    for result in results:
        assert isinstance(result, TimeoutResult)
        assert result.phase == "batch"
        assert result.limit == pytest.approx(batch.options.deadline, abs=0.002)
    assert [result.stopped for result in results] == ["cancelled", "not started"]


async def test_a_batch_without_a_deadline_gets_one(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1) as started:
        batch: Any = await producer.submit([hang.spec(), square.spec(2)])
        await until(lambda: started.crew.slots.used == 1)
        await batch.extend(deadline=0.5)
        results = await batch.results()
    assert [(result.phase, result.stopped) for result in results] == [("batch", "cancelled"), ("batch", "not started")]
    assert all(0.4 < result.limit < 10 for result in results)


async def test_without_a_worker_the_new_deadline_closes_the_batch_too(producer: Producer) -> None:
    batch: Any = await producer.submit(square.map(range(3)))
    await batch.extend(deadline=0.2)
    results = await batch.results()
    assert {(result.phase, result.stopped) for result in results} == {("batch", "not started")}
    assert {result.limit for result in results} == {batch.options.deadline}


async def test_the_jobs_own_clocks_hold_on(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        specs = [hang.spec(timeout=0.6), hang.spec(deadline=0.7), hang.spec(heartbeat_timeout=0.5), beat_on.spec(3.0)]
        batch: Any = await producer.submit(specs, deadline=2.5)
        await until_running(batch, 4)
        await batch.extend(deadline=LONG)
        results = await batch.results()
    assert [getattr(result, "phase", result.status) for result in results] == [
        "running", "deadline", "heartbeat", "success",
    ]  # fmt: skip


async def test_a_job_that_promised_heartbeats_has_the_new_time(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([beat_on.spec(3.0)], deadline=2.5, heartbeat_timeout=0.8)
        await until_running(batch, 1)
        await batch.extend(deadline=LONG)
        assert [result.status for result in await batch.results()] == ["success"]


async def test_a_plain_job_in_its_process_knows_its_new_time(producer: Producer, worker: StartWorker) -> None:
    async with worker() as started:
        batch: Any = await producer.submit([plain_remaining_after.spec(1.0)], deadline=20)
        await until(lambda: started.crew.runner.reports)
        await batch.extend(deadline=LONG)
        [result] = await batch.results()
    assert 20 < result.value < LONG


async def test_more_jobs_are_taken_after_the_old_deadline(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch: Any = await producer.open_batch(deadline=0.5)
        await batch.extend(deadline=LONG)
        created = (await batch.status()).created_at
        await until(lambda: producer.clock.now() > created + 0.6)
        assert await batch.add(square.spec(3)) == [0]
        await batch.close()
        assert await batch.gather() == [9]


async def test_what_is_over_cannot_be_extended(producer: Producer, worker: StartWorker) -> None:
    expired = await producer.submit([square.spec(2)], deadline=0.05)
    deadline = (await expired.status()).deadline or 0
    await until(lambda: producer.clock.now() > deadline)
    with pytest.raises(BatchEndedError, match=f"batch '{expired.id}' cannot be extended: its deadline has passed"):
        await expired.extend(deadline=LONG)
    async with worker():
        complete = await producer.submit([square.spec(2)])
        await complete.results()
        with pytest.raises(BatchEndedError, match="it is complete"):
            await complete.extend(deadline=LONG)


async def test_a_batch_whose_jobs_are_being_cancelled_cannot_be_extended(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    batch = await producer.submit([square.spec(1)])
    redis.hset(keys.batch(batch.id), "cancelled_at", producer.clock.now())
    with pytest.raises(BatchEndedError, match="it was cancelled"):
        await batch.extend(deadline=LONG)


async def test_it_never_shortens(producer: Producer) -> None:
    batch = await producer.submit([square.spec(2)], deadline=LONG)
    with pytest.raises(OptionError, match=r"extend\(deadline=5\) would shorten batch .*, which has \d+\.\d+ s left"):
        await batch.extend(deadline=5)
    assert (await producer.attach(batch.id)).options.deadline == LONG


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "soon", 1e12, None])
async def test_a_time_that_cannot_be_is_refused(producer: Producer, value: Any) -> None:
    batch = await producer.submit([square.spec(2)])
    with pytest.raises(OptionError, match="deadline"):
        await batch.extend(deadline=value)
    assert (await batch.status()).deadline is None


async def test_of_two_that_extend_at_once_the_later_deadline_holds(producer: Producer) -> None:
    batch = await producer.submit([square.spec(2)], deadline=LONG)
    other = await producer.attach(batch.id)
    await asyncio.gather(batch.extend(deadline=2 * LONG), other.extend(deadline=3 * LONG), return_exceptions=True)
    status = await batch.status()
    assert status.deadline is not None
    assert status.deadline - status.created_at == pytest.approx(3 * LONG, abs=2)


async def test_a_batch_that_is_gone_is_said_so(producer: Producer) -> None:
    batch = await producer.submit([square.spec(2)])
    await batch.delete()
    with pytest.raises(BatchLostError):
        await batch.extend(deadline=LONG)


async def test_later_chunks_and_the_parent_of_a_redrive_know_the_new_options(producer: Producer) -> None:
    batch = await producer.submit([square.spec(2)], deadline=LONG, name="x", metadata={"deadline": 5})
    await batch.extend(deadline=2 * LONG)
    again = await producer.attach(batch.id)
    assert again.options.deadline == pytest.approx(2 * LONG, abs=2)
    assert (again.options.name, again.options.metadata) == ("x", {"deadline": 5})
