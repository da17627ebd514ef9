"""Plain functions are claimed as the worker's processes have room for them, and let others pass meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.clock import RedisClock
from protocol.connection import Scripts, encode_payload
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.integration.test_arq_cli import ARQ, READY
from tests.jobs import plain_square, plain_tell, square, wait_for_file
from workers.claims import Claims
from workers.starting.slots import Slots


def calls(redis: Any) -> int:
    """Count the scripts that Redis has run."""
    return int(redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_worker_claims_no_more_plain_jobs_than_it_has_processes_for(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    batch = await producer.submit(plain_tell.map([door] * 10))
    async with worker(job_processes=1) as one:
        await until(lambda: one.crew.slots.used == 1)
        async with worker(job_processes=2) as two:
            await until(lambda: two.crew.slots.used == 2)
            status = await batch.status()
            assert (status.running, status.queued) == (3, 7), "what waits for a process does not run"
            before = calls(redis)
            await asyncio.sleep(1)  # what does not happen is what is tested
            assert calls(redis) - before < 80, "each looks twenty times a second for what needs no process"
            door.touch()
            assert len(await batch.gather()) == 10
            assert len({result.worker for result in await batch.results()}) == 2


async def test_plain_jobs_that_travel_with_others_are_told_from_them_by_the_first_that_is_left(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    batch: Batch[Any] = await producer.submit([square.spec(3), *(plain_tell.spec(door) for _ in range(10))])
    async with worker(job_processes=1, concurrency=2) as one:
        await until(lambda: one.crew.slots.used == 1)
        await asyncio.sleep(0.3)  # what does not happen is what is tested
        assert (one.crew.slots.waiting, (await batch.status()).queued) == (0, 9)
        door.touch()
        assert (await batch.gather())[0] == 9


async def test_jobs_that_need_no_process_pass_those_that_wait_for_one(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(job_processes=1) as one:
        batches = [await producer.submit(plain_tell.map([door] * 10)) for _ in range(20)]
        await until(lambda: one.crew.slots.used == 1)
        assert len(await (await producer.submit(square.map(range(500)))).gather()) == 500
        assert (await batches[-1].status()).running == 0
        door.touch()
        for batch in batches:
            await batch.wait()


async def test_plain_jobs_are_not_starved_by_those_that_need_no_process(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker(job_processes=1, concurrency=4):
        many = await producer.submit(square.map(range(3000)))
        plain = await producer.submit(plain_square.map(range(20)))
        more = await producer.submit(square.map(range(3000)))
        assert await plain.gather() == [n * n for n in range(20)]
        assert len(await many.gather()) == len(await more.gather()) == 3000


async def test_others_are_found_however_many_chunks_wait_for_processes(
    producer: Producer, worker: StartWorker, door: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.claims.LOOK_FARTHER", 0.01)
    async with worker(job_processes=1) as one:
        batches = [await producer.submit([plain_tell.spec(door)]) for _ in range(300)]
        await until(lambda: one.crew.slots.used == 1)
        for _ in range(2):
            assert await (await producer.submit([square.spec(3)])).gather() == [9]
        door.touch()
        for batch in batches:
            await batch.wait()


async def test_a_claim_that_waits_leaves_plain_jobs_to_who_has_a_process(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with worker(job_processes=1) as one:
        first = await producer.submit(plain_tell.map([door]))
        await until(lambda: one.crew.slots.used == 1 and one.crew.claims._awaited)
        async with worker(job_processes=1) as two:
            await until(lambda: two.crew.claims._awaited)
            second = await producer.submit(plain_tell.map([door]))
            await until(lambda: two.crew.slots.used == 1)
            door.touch()
            await first.wait()
            await second.wait()


async def test_jobs_of_both_kinds_in_one_chunk_start_where_they_can(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(job_processes=1) as one:
        kinds = [square.spec(0), plain_tell.spec(door), plain_tell.spec(door), square.spec(3), plain_tell.spec(door)]
        batch: Batch[Any] = await producer.submit(kinds)
        await until(lambda: one.crew.slots.waiting == 3)
        async with worker(job_processes=1) as two:
            await until(lambda: two.crew.slots.used == 1)
            await until(lambda: not one.crew.slots.waiting)
            door.touch()
            assert await batch.gather() == [0, None, None, 9, None]


async def test_a_lone_claim_of_a_retried_job_goes_by_that_jobs_function(
    producer: Producer, redis: Any, door: Path
) -> None:
    await producer.submit([square.spec(1), plain_tell.spec(door)], batch_id="b")
    redis.zrem(keys.queue("default"), "b:0")
    redis.set("arq:job:b:0+1", encode_payload("b", 0, 2, 1.0, 1), px=60_000)
    redis.zadd(keys.queue("default"), {"b:0+1": 1})
    redis.expire(keys.queue("default"), 60)
    places = Slots(1)
    claims = Claims(Scripts(producer.redis), "default", "a", RedisClock(), 10.0, places)
    assert places.try_take()
    found = await claims.due(Slots(10))
    assert (found.chunks, found.lacks_processes) == ([], True)
    places.give()
    assert [chunk.chunk_id for chunk in (await claims.due(Slots(10))).chunks] == ["b:0+1"]


@pytest.mark.redis
async def test_a_worker_killed_after_it_gave_back_loses_nothing(
    producer: Producer, worker_process: StartProcess, door: Path, redis: Any
) -> None:
    first = worker_process(job_processes=1, lease=1)
    batch: Batch[Any] = await producer.submit([square.spec(3), *wait_for_file.map([door]), *plain_tell.map([door] * 6)])
    await until(lambda: redis.hget(keys.batch(batch.id), "done") == b"1")
    worker_process(job_processes=1)
    await until_running(batch, 3)
    first.kill()
    door.touch()
    results = await batch.results()
    assert {result.status for result in results} == {"success"}
    assert {result.attempt for result in results} == {1}


@pytest.mark.redis
async def test_arqs_worker_gives_back_all_but_one_job_of_a_chunk(
    producer: Producer, worker_process: StartProcess, worker: StartWorker, door: Path, redis: Any
) -> None:
    worker_process("tests.jobs", command=ARQ, ready=READY, job_processes=1)
    batch: Batch[Any] = await producer.submit([square.spec(3), *plain_tell.map([door] * 8)])
    await until(lambda: redis.hget(keys.batch(batch.id), "done") == b"1")
    async with worker(job_processes=5) as two:
        await until(lambda: two.crew.slots.used == 5)
        door.touch()
        assert await batch.gather() == [9, *[None] * 8]
