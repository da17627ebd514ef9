"""Producers that are killed, cancelled or slow: the batch goes on, nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.chunks import decode_chunk
from straggler import UsageError, job
from tests.conftest import PATIENCE, StartProcess, StartWorker, WorkerProcess, until
from tests.jobs import square
from tests.producers import JOBS


@pytest.fixture
def producer_process(redis_url: str, worker_process: StartProcess) -> Any:
    """Start a program of `tests.producers`."""

    def start(what: str, batch_id: str) -> WorkerProcess:
        return worker_process(command=[sys.executable, "-m", "tests.producers", what, redis_url, batch_id], ready="")

    return start


@pytest.mark.redis
async def test_submission_killed_again_and_again_has_every_job_once(
    producer: Producer, redis: Any, producer_process: Any, worker: StartWorker
) -> None:
    def total() -> int:
        return int(redis.hget(keys.batch("b"), "total") or 0)

    for reached in (1, 3_000, 9_000):  # each starts from the first job, and passes over what is there
        process = producer_process("submit", "b")
        await until(lambda reached=reached: total() >= reached)  # type: ignore[misc]  # the point
        process.kill()
    assert 9_000 <= total() < JOBS
    assert redis.hget(keys.batch("b"), "closed") == b"0"
    batch = await producer.submit(square.map(range(JOBS)), batch_id="b")
    chunks = [decode_chunk(0, chunk, "key") for chunk in redis.hvals(keys.chunks("b"))]
    numbers = [job.kwargs["number"] for chunk in chunks for job in chunk]
    assert sorted(numbers) == list(range(JOBS))
    async with worker():
        results = await batch.results()
    assert [result.unwrap() for result in results] == [number**2 for number in range(JOBS)]


@pytest.mark.redis
async def test_collector_killed_in_the_middle_goes_on_at_its_last_cursor(
    producer: Producer, producer_process: Any, worker: StartWorker
) -> None:
    async with worker():
        await (await producer.submit(square.map(range(20_000)), batch_id="b")).wait()
    cursor, seen = "0-0", []
    process = producer_process("collect", "b")
    await until(lambda: process.output.count("\n") > 100)
    process.kill()
    for line in process.output.splitlines(keepends=True):
        if line.endswith("\n"):  # else its result was not taken
            index, cursor = line.split()
            seen.append(int(index))
    assert 100 < len(seen) < 20_000
    batch = await producer.attach("b", cursor=cursor)
    seen += [result.index async for result in batch.as_completed()]
    assert sorted(seen) == list(range(20_000))


@pytest.mark.redis
async def test_collector_slower_than_the_workers_costs_no_memory(producer: Producer, worker: StartWorker) -> None:
    @job
    async def large(number: int) -> str:
        return "x" * 2000

    async with worker():
        await (await producer.submit(large.map(range(100)))).wait()  # what is made once is no matter here
        gc.collect()
        tracemalloc.start()
        try:
            batch: Batch[str] = await producer.submit(large.map(range(20_000)))
            results = batch.as_completed()
            await anext(results)
            while not (await batch.status()).complete:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.05)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        unread = [result async for result in results]
    assert len(unread) == 19_999
    assert held < 15 << 20, "the values alone are 40 MB; one read is at most 16 entries, 8 MB here"


async def test_cancelled_collector_leaves_batch_and_handle_usable(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit(square.map(range(3000)))
    seen: list[int] = []

    async def collect() -> None:
        async for result in batch.as_completed():
            seen.append(result.index)
            await asyncio.sleep(0)

    waiting = asyncio.create_task(collect())  # cancelled while it waits, then in the middle of the results
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait({waiting})
    async with worker():
        while len(seen) < 3000:
            count = len(seen)
            collecting = asyncio.create_task(collect())
            await until(lambda count=count, task=collecting: len(seen) > count + 500 or task.done())  # type: ignore[misc]
            collecting.cancel()
            await asyncio.wait({collecting})
    assert sorted(seen) == list(range(3000))
    assert (await batch.status()).success == 3000


# ---- another event loop


@pytest.mark.redis
@pytest.mark.parametrize("url", ["memory://on-two-loops", None])
def test_producer_on_another_loop_than_the_one_it_was_opened_on_says_what_is_wrong(
    url: str | None, redis_url: str
) -> None:
    producer = Producer(url or redis_url)
    with asyncio.Runner() as opened_on, asyncio.Runner() as other:
        opened_on.run(producer.__aenter__())
        batch = opened_on.run(producer.submit(square.map(range(3))))
        for use in (lambda: producer.submit(square.map(range(3))), batch.status, batch.results, producer.close):
            with pytest.raises(UsageError, match=r"opened on another event loop.*straggler\.sync"):
                other.run(asyncio.wait_for(use(), PATIENCE))
        assert opened_on.run(batch.status()).total == 3
        opened_on.run(producer.close())
        other.run(producer.__aenter__())  # closed, it may be opened anew anywhere
        assert len(other.run(producer.batches())) == 1
        other.run(producer.close())
