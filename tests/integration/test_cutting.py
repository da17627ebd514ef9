"""Chunks are cut where they are claimed: a worker takes the jobs that it has room for, another one the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.chunks import decode_chunk, encode_calls
from protocol.jobs import JobSpec
from straggler import CancelledResult, SuccessResult
from tests.conftest import StartWorker, until, until_running
from tests.jobs import echo, fail, nap, square, wait_for_file

ROUGH: list[Any] = ["],[", [[1], [2]], ["a],\n[b"], "\n", '",\n"', {"args": [[1], [2]]}, [], "", 0.1, None, "é\u2028"]


def sizes(redis: Any, batch: Batch[Any]) -> dict[int, int]:
    """Tell how many jobs each chunk has, by its first."""
    return {int(first): len(decode_chunk(0, jobs, "")) for first, jobs in redis.hgetall(keys.chunks(batch.id)).items()}


@pytest.mark.parametrize("make", [echo.spec, lambda value: echo.spec(value, key="k")])
async def test_jobs_of_a_chunk_that_is_cut_are_those_that_were_submitted(
    producer: Producer, worker: StartWorker, redis: Any, make: Any
) -> None:
    batch: Batch[Any] = await producer.submit([make(value) for value in ROUGH])
    assert list(sizes(redis, batch).values()) == [len(ROUGH)]
    async with worker(concurrency=2):
        assert await batch.gather() == ROUGH


@pytest.mark.parametrize("rows", [[("],[",), (1,)], [([1], [2]), ([], [3])], [(), ()], [("],[", "],["), ("a", "b")]])
def test_a_line_break_stands_between_jobs_and_nowhere_else(rows: list[tuple[Any, ...]]) -> None:
    data = encode_calls("far away", rows)
    assert data is not None
    assert data.count(b",\n") == data.count(b"\n") == len(rows) - 1
    assert list(decode_chunk(0, data, "")) == [JobSpec(function="far away", args=row) for row in rows]


async def test_a_worker_takes_what_it_has_slots_for_and_another_one_the_rest(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    batch = await producer.submit(wait_for_file.map([door] * 100))
    due = redis.zscore(keys.queue("default"), f"{batch.id}:0")
    assert sizes(redis, batch) == {0: 100}
    async with worker(concurrency=3) as one:
        await until_running(batch, 3)
        async with worker(concurrency=20) as two:
            await until_running(batch, 23)
            status = await batch.status()
            assert (status.queued, one.crew.slots.waiting, two.crew.slots.waiting) == (77, 0, 0)
            found = sizes(redis, batch)
            assert sum(found.values()) == 100
            assert found[23] == 77, "the rest stays in one piece"
            assert redis.zscore(keys.queue("default"), f"{batch.id}:23") == due, "and at its place"
            door.touch()
            results = await batch.results()
    assert {type(result) for result in results} == {SuccessResult}
    assert len({result.enqueued_at for result in results}) == 1, "pieces were enqueued when the whole was"
    await until(lambda: not sizes(redis, batch))
    await until(lambda: not redis.keys("arq:job:*"))


async def test_few_jobs_share_what_becomes_of_a_chunk(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    batch = await producer.submit(wait_for_file.map([door] * 100))
    async with worker(concurrency=64):
        await until_running(batch, 64)
        assert max(size for first, size in sizes(redis, batch).items() if first < 64) == 4
        door.touch()
        await batch.wait()


async def test_a_chunk_that_has_run_is_cut_no_more(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    batch: Batch[Any] = await producer.submit([square.spec(1), *wait_for_file.map([door] * 3), *square.map(range(16))])
    async with worker(concurrency=64, shutdown_wait=0.05):
        await until(lambda: redis.hget(keys.batch(batch.id), "done") == b"17")
    before = sizes(redis, batch)
    async with worker(concurrency=1):
        await until(lambda: redis.zcard(keys.queue("default")))
        door.touch()
        assert len(await batch.gather()) == 20
    assert set(sizes(redis, batch)) <= set(before)


async def test_jobs_that_were_cut_off_are_cancelled_as_any(producer: Producer, worker: StartWorker, door: Path) -> None:
    batch = await producer.submit(wait_for_file.map([door] * 50))
    async with worker(concurrency=5):
        await until_running(batch, 5)
        await batch.cancel([2, 4, 7, 49], reason="no more")
        door.touch()
        results = await batch.results()
    assert [result.index for result in results if isinstance(result, CancelledResult)] == [2, 4, 7, 49]
    assert (await batch.status()).queued == 0


async def test_jobs_that_were_cut_off_run_again_and_are_redriven(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=3):
        batch = await producer.submit(fail.map(map(str, range(40))), retries=1, backoff=0.01)
        results = await batch.results()
        assert [(result.status, result.attempt) for result in results] == [("failure", 2)] * 40
        again = await batch.retry("failure", retries=0)
        messages = [getattr(result, "message", None) for result in await again.results()]
    assert messages == list(map(str, range(40)))


async def test_a_submission_that_comes_again_after_the_cut_adds_nothing(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    batch = await producer.submit(wait_for_file.map([door] * 300), batch_id="b")
    async with worker(concurrency=2):
        await until_running(batch, 2)
        again = await producer.submit(wait_for_file.map([door] * 300), batch_id="b")
        assert (await again.status()).total == 300
        door.touch()
        assert len(await again.gather()) == 300


async def test_a_chunk_that_is_not_joined_as_ours_is_taken_whole(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    batch = await producer.submit(square.map(range(5)))
    jobs = redis.hget(keys.chunks(batch.id), "0")
    redis.hset(keys.chunks(batch.id), "0", jobs.replace(b"\n", b""))
    async with worker(concurrency=2):
        assert await batch.gather() == [0, 1, 4, 9, 16]


async def test_slots_are_filled_again_as_soon_as_they_are_free(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=4) as running:
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door), *nap.map([0.01] * 60)])
        await batch.wait(among=range(1, 61))  # a long job holds its own slot only
        door.touch()
        await batch.wait()
        await asyncio.sleep(0)
        assert running.crew.slots.waiting == 0


async def test_long_jobs_that_follow_short_ones_are_not_held_beyond_the_slots(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=5) as running:
        assert len(await (await producer.submit(square.map(range(3000)))).gather()) == 3000
        assert running.crew.slots.piece > 5, "of the short ones many were taken at a time"
        await until(lambda: not running.crew.slots.soon_over)
        batch = await producer.submit(wait_for_file.map([door] * 300))
        await until_running(batch, 5)
        assert ((await batch.status()).queued, running.crew.slots.waiting) == (295, 0)
        door.touch()
        await batch.wait()
