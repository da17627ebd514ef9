"""Cancelling many jobs, page by page, while something dies in the middle: the canceller, Redis, a connection."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.collect import Cursor, read_present
from producer.control.openjobs import OpenJobs
from producer.producer import Producer
from protocol import keys
from protocol.connection import Call, Scripts
from protocol.recording import decode_indexes
from straggler import JobSpec
from tests.commands import Command
from tests.conftest import ROOT, StartWorker, until, until_running
from tests.jobs import hang, square
from tests.redis_server import RedisServer
from tests.tap import Tap

pytestmark = pytest.mark.redis

# Some ten pages of chunks.
JOBS = 20_000


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server, which may be killed."""
    return server.url


@pytest.fixture
def start_cancel(tmp_path: Path) -> Iterator[Any]:
    """Start `straggler cancel` as a process."""
    started = []

    def start(url: str, batch: Batch[Any], reason: str) -> Command:
        own = {name: value for name, value in os.environ.items() if not name.startswith("STRAGGLER_")}
        environment = {**own, "PYTHONPATH": str(ROOT), "STRAGGLER_REDIS_URL": url}
        started.append(Command("cancel", batch.id, "--reason", reason, cwd=tmp_path, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def jobs() -> Iterator[JobSpec[int]]:
    """Make jobs, of which some are unlike the others of their chunk."""
    for number in range(JOBS):
        yield square.spec(number, key=f"n{number}") if JOBS // 2 < number < JOBS // 2 + 300 else square.spec(number)


@asynccontextmanager
async def third_page(server: RedisServer, batch: Batch[Any], *, before: bool) -> AsyncIterator[Tap]:
    """Hold the calls that write a page's results, once two pages or so are written."""
    async with Tap(server.socket, "record", batch.id, before=before, nth=5) as tap:
        yield tap


async def check(producer: Producer, batch: Batch[Any], redis: Any, *reasons: str) -> None:
    """Make sure that each job is cancelled, once, and nothing of it is left in the queue."""
    results: list[Any] = await batch.results()
    assert [result.index for result in results] == list(range(JOBS))
    assert {(result.status, result.function) for result in results} == {("cancelled", "square")}
    assert Counter(result.reason for result in results).keys() <= set(reasons)
    assert [result.key for result in results if result.key] == [f"n{n}" for n in range(JOBS // 2 + 1, JOBS // 2 + 300)]
    told = [result async for result in read_present(producer.redis, batch.id, Cursor())]
    assert len(told) == JOBS, "the stream tells none twice"
    status = await batch.status()
    assert (status.cancelled, status.done, status.queued, status.running) == (JOBS, JOBS, 0, 0)
    await until(lambda: not redis.zcard(keys.queue("default")) and not redis.keys("arq:job:*"))


@pytest.mark.parametrize("is_cancelled_again", [False, True])
async def test_what_a_canceller_leaves_that_was_killed_between_pages_is_done_by_another(
    producer: Producer,
    worker: StartWorker,
    server: RedisServer,
    redis: Any,
    start_cancel: Any,
    *,
    is_cancelled_again: bool,
) -> None:
    batch = await producer.submit(jobs(), grace=0)
    async with third_page(server, batch, before=True) as tap:
        process = start_cancel(tap.url, batch, "first")
        await tap.is_there.wait()
        process.kill()
        process.wait()
        tap.lose()
    before = await batch.status()
    assert 0 < before.cancelled < JOBS
    if is_cancelled_again:
        assert await batch.cancel(reason="second") == JOBS - before.cancelled
    assert len(await batch.results()) == JOBS
    # What it had written and not yet taken out of the queue a worker forgets.
    async with worker():
        await check(producer, batch, redis, "first", *["second"] * is_cancelled_again)


@pytest.mark.parametrize("before", [True, False])
async def test_a_page_whose_calls_or_replies_are_lost_is_written_again(
    producer: Producer, server: RedisServer, redis: Any, *, before: bool
) -> None:
    batch = await producer.submit(jobs())
    async with third_page(server, batch, before=before) as tap, Producer(tap.url) as other:
        cancelling = asyncio.create_task((await other.attach(batch.id)).cancel(reason="why"))
        await tap.is_there.wait()
        tap.lose()
        assert await cancelling == JOBS
        assert tap.calls > 5
    await check(producer, batch, redis, "why")


async def test_a_cancel_goes_on_where_redis_was_killed_in_the_middle_and_restarted(
    producer: Producer, server: RedisServer, redis: Any
) -> None:
    batch = await producer.submit(jobs())
    async with third_page(server, batch, before=True) as tap, Producer(tap.url) as other:
        cancelling = asyncio.create_task((await other.attach(batch.id)).cancel(reason="why"))
        await tap.is_there.wait()
        server.kill()
        tap.lose()
        await asyncio.to_thread(server.start)
        assert await cancelling == JOBS
    await check(producer, batch, redis, "why")


async def test_two_processes_cancel_all_jobs_at_once(
    producer: Producer, redis: Any, redis_url: str, start_cancel: Any
) -> None:
    batch = await producer.submit(jobs())
    processes = [start_cancel(redis_url, batch, reason) for reason in ("first", "second")]
    assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0]
    await check(producer, batch, redis, "first", "second")


async def test_a_cancel_of_a_large_batch_leaves_the_jobs_of_another_to_their_workers(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    other = await producer.submit([hang.spec()] * 5)
    async with worker(concurrency=5):
        await until_running(other, 5)
        batch = await producer.submit(jobs())
        assert await batch.cancel(reason="why") == JOBS
        assert (await other.status()).running == 5
        assert len(redis.hkeys(keys.holders(other.id))) == len(redis.keys(f"arq:in-progress:{other.id}:*")) > 0
        await other.cancel()
    assert [result.status for result in await batch.results()] == ["cancelled"] * JOBS


async def test_a_page_of_chunks_takes_a_few_trips_and_no_call_more_than_a_chunk(
    producer: Producer, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, trips, most = 0, 0, 0
    find, run_all = OpenJobs.find, Scripts.run_all

    async def count_page(self: OpenJobs, page: Any) -> Any:
        nonlocal pages
        pages += bool(page)  # Redis may find none at a place of its table
        return await find(self, page)

    async def count_trip(self: Scripts, calls: list[Call]) -> Any:
        nonlocal trips, most
        trips += 1
        most = max([most, *(len(decode_indexes(args[2])) for name, _, args in calls if name == "record")])
        return await run_all(self, calls)

    monkeypatch.setattr(OpenJobs, "find", count_page)
    monkeypatch.setattr(Scripts, "run_all", count_trip)
    batch = await producer.submit(square.map(range(JOBS)))
    chunks, trips = redis.hlen(keys.chunks(batch.id)), 0
    await batch.cancel()
    assert trips == pages + 1 < chunks / 4, "one to decide, one for each page"
    assert 0 < most <= 256
