"""Adding and cancelling while something dies: Redis, its connections, the canceller, a worker's loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol import keys
from straggler import current_job, job
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.integration.test_redis_away import kill_clients, restart_after_a_crash, run_out_of_memory, stand_still
from tests.jobs import echo, hang, square
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

OUTAGES = [restart_after_a_crash, kill_clients, run_out_of_memory, stand_still]
JOBS = "tests.jobs,tests.integration.test_steering_faults"


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server."""
    return server.url


@job
async def add_slowly(start: int, count: int) -> list[int]:
    """Add a job every few milliseconds."""
    indexes = []
    for number in range(start, start + count):
        indexes += await current_job().add(echo.spec(number))
        await asyncio.sleep(0.005)
    return indexes


@job
async def block_the_loop(path: Path, door: Path) -> None:
    path.touch()
    while not door.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
async def test_each_job_is_added_once_whatever_redis_does_meanwhile(
    producer: Producer, worker: StartWorker, server: RedisServer, outage: Callable[[RedisServer], Awaitable[None]]
) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add(add_slowly.spec(1000, 100))
        going = asyncio.ensure_future(outage(server))
        told = []
        for number in range(100):
            told += await batch.add([echo.spec(number)])
            await asyncio.sleep(0.005)
        await going
        await batch.close(when_idle=True)
        first, *others = await batch.gather()
    assert Counter(others) == Counter([*range(100), *range(1000, 1100)])
    assert [others[index - 1] for index in told] == list(range(100)), "each was told its own index"
    assert [others[index - 1] for index in first] == list(range(1000, 1100))


@pytest.mark.parametrize("outage", OUTAGES[:2], ids=lambda outage: outage.__name__)
async def test_a_worker_hears_of_a_cancel_after_an_outage(
    producer: Producer, worker: StartWorker, server: RedisServer, outage: Callable[[RedisServer], Awaitable[None]]
) -> None:
    async with worker():
        batch = await producer.submit([hang.spec()] * 5)
        await until_running(batch, 5)
        await outage(server)
        await batch.cancel(reason="why")
        results = await batch.results()
    assert [result.status for result in results] == ["cancelled"] * 5


async def test_a_cancel_during_an_outage_is_done_after_it(
    producer: Producer, worker: StartWorker, server: RedisServer
) -> None:
    async with worker():
        batch = await producer.submit([*[hang.spec()] * 5, *square.map(range(5))])
        await until_running(batch, 5)
        server.kill()
        cancelling = asyncio.create_task(batch.cancel())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        assert await cancelling in (5, 10)
        results = await batch.results()
    assert [result.status for result in results[:5]] == ["cancelled"] * 5


async def test_a_cancelled_batch_whose_canceller_was_killed_is_ended_by_its_collector(
    producer: Producer, server: RedisServer
) -> None:
    batch = await producer.submit(square.map(range(300)), grace=0)
    names = tuple(name(batch.id) for name in (keys.batch, keys.cancelled, keys.done, keys.chunks))
    await producer.scripts.run("cancel", names, (60_000, "why"))  # and no more
    results = await batch.results()
    assert {(result.status, getattr(result, "reason", "")) for result in results} == {("cancelled", "why")}


async def test_a_job_that_blocks_its_workers_loop_is_not_waited_for(
    producer: Producer, worker_process: StartProcess, door: Path, tmp_path: Path
) -> None:
    await asyncio.to_thread(worker_process, JOBS, concurrency=2)
    there = tmp_path / "there"
    batch = await producer.submit([block_the_loop.spec(there, door), hang.spec()])
    await until(there.exists)
    await batch.cancel(reason="why")
    assert [result.status for result in await batch.results()] == ["cancelled"] * 2
    door.touch()  # it blocks to the end of the test, if need be
    other = await producer.submit(square.map(range(3)))
    assert await other.gather() == [0, 1, 4], "the worker lives"


async def test_two_cancel_at_the_same_time(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([hang.spec()] * 300)
        await until_running(batch, 100)
        other = await producer.attach(batch.id)
        counts = await asyncio.gather(batch.cancel(reason="a"), other.cancel(reason="b"), batch.cancel([1, 2], "c"))
        results: list[Any] = await batch.results()
    assert all(result.status == "cancelled" for result in results)
    assert {result.reason for result in results} <= {"a", "b", "c"}
    assert max(counts) == 300
