"""The worker and its queue: how it hears of work, and what it does with bytes that are not ours."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.connection import encode_payload
from straggler import FailureResult
from tests.conftest import PATIENCE, StartWorker, until, until_running
from tests.jobs import fail, hang, nap, square


def calls(redis: Any) -> int:
    stats = redis.info("commandstats")
    return sum(s["calls"] for name, s in stats.items() if not name.startswith(("cmdstat_config", "cmdstat_info")))


async def hardly_talks(redis: Any) -> None:
    """Assert that a worker has little to say in a second, once it has said all about what it has just done."""
    for _ in range(10):
        await asyncio.sleep(0.1)
        redis.config_resetstat()
        await asyncio.sleep(1.0)
        if calls(redis) <= 2:
            return
    pytest.fail(f"{calls(redis)} calls in the last second")


@pytest.mark.redis
async def test_an_idle_worker_hardly_talks(producer: Producer, redis: Any, worker: StartWorker) -> None:
    async with worker():
        await (await producer.submit(square.map([1]))).wait()
        await hardly_talks(redis)


@pytest.mark.redis
async def test_a_busy_worker_without_free_slots_hardly_talks(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker(concurrency=2):
        batch = await producer.submit([hang.spec() for _ in range(5)], timeout=30)
        await until_running(batch, 2)
        await hardly_talks(redis)


async def test_a_job_for_an_idle_worker_starts_at_once(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        await (await producer.submit(square.map([1]))).wait()
        times: list[float] = []
        while len(times) < 20 and min(times, default=1.0) > 0.1:  # a busy machine is slow now and then
            await asyncio.sleep(0.05)
            begin = time.monotonic()
            await (await producer.submit(square.map([1]))).wait()
            times.append(time.monotonic() - begin)
    assert min(times) < 0.1, "arq's own polling takes 0.5 s"


async def test_a_worker_that_is_full_is_healthy_all_the_same(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker(concurrency=1, lease=0.3):
        await producer.submit([hang.spec(), hang.spec()], timeout=30)
        await until(lambda: redis.keys("straggler:health:*"))
        [health] = redis.keys("straggler:health:*")
        for _ in range(20):
            await asyncio.sleep(0.1)
            assert redis.exists(health)


async def test_a_burst_worker_leaves_once_the_queue_is_empty(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    batch = await producer.submit(nap.map([0.1, 0.0]))
    async with worker(burst=True):
        assert (await batch.wait(PATIENCE)).pending == []
        await until(lambda: not redis.keys("straggler:worker:*"))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x04\x95K\x01.",
        b"{}",
        b"[]",
        b'{"t":null,"f":"somebody elses","a":["b",0,1],"k":{},"et":1}',
        b'{"t":null,"f":"straggler_chunk","a":[],"k":{},"et":1}',
        b'{"t":null,"f":"straggler_chunk","a":["b",-1,"x"],"k":{},"et":1}',
        b'{"t":null,"f":"straggler_chunk","a":["b",0,1.5],"k":{},"et":1}',
        b'{"t":null,"f":"straggler_chunk","a":["b",0,1],"k":{},"et":"x"}',
        None,
    ],
)
async def test_a_payload_that_is_not_ours_is_dropped_and_the_worker_lives(
    producer: Producer, redis: Any, worker: StartWorker, payload: bytes | None
) -> None:
    redis.zadd(keys.queue("default"), {"foreign:0": 1})
    if payload is not None:
        redis.set("arq:job:foreign:0", payload, px=60_000)
    redis.hset(keys.batch("b"), mapping={"options": "{}", "total": 1})
    redis.pexpire(keys.batch("b"), 60_000)
    async with worker():
        assert await (await producer.submit(square.map([2]))).gather() == [4]
        await until(lambda: redis.zscore(keys.queue("default"), "foreign:0") is None)
    assert not redis.exists("arq:in-progress:foreign:0")


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        (b"\x80\x04K\x01.", "field 0: Invalid JSON"),
        (b"[]", "field 0: no jobs"),
        (b'[{"function":"square"}]', "holds 1 jobs instead of 256"),
        (b"[1,2,3]", "field 0: 0: Input should be an object"),
        (b'{"kinds":[{"function":"square","names":["number"]}],"args":[[1],[2]]}', "holds 2 jobs instead of 256"),
        (None, "field 0 is gone"),
    ],
)
async def test_a_chunk_that_is_not_ours_fails_its_jobs_and_the_worker_lives(
    producer: Producer, redis: Any, worker: StartWorker, chunk: bytes | None, told: str
) -> None:
    batch: Batch[Any] = await producer.submit([square.spec(n) for n in range(600)])
    redis.hdel(keys.chunks(batch.id), 0) if chunk is None else redis.hset(keys.chunks(batch.id), 0, chunk)
    async with worker():
        results = await batch.results()
    failures = [result for result in results if isinstance(result, FailureResult)]
    assert [failure.index for failure in failures] == list(range(256))
    assert {failure.error_type for failure in failures} == {"protocol.errors.ProtocolError"}
    assert told in failures[0].message
    assert f"straggler:batch:{batch.id}:chunks" in failures[0].message


async def test_options_that_are_not_ours_fail_the_jobs_naming_the_key(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    batch = await producer.submit(square.map([1]))
    redis.hset(keys.batch(batch.id), "options", '{"timeout":-1}')
    async with worker():
        [failure] = [result async for result in batch.as_completed()]
    assert isinstance(failure, FailureResult)
    assert f"'straggler:batch:{batch.id}': field options: timeout" in failure.message


async def test_results_that_cannot_be_recorded_hold_up_nobody_elses(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    spoilt = await producer.submit(square.map([1]))
    redis.set(keys.results(spoilt.id), "not a stream", px=60_000)
    async with worker():
        assert await (await producer.submit(square.map(range(100)))).gather() == [n * n for n in range(100)]
    assert (await spoilt.status()).total == 1


async def test_scripts_that_redis_has_forgotten_are_taught_again(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker():
        for _ in range(5):
            batch = await producer.submit(square.map(range(300)))
            redis.script_flush()
            assert len(await batch.gather()) == 300


async def test_the_first_result_of_a_job_wins(producer: Producer, redis: Any, worker: StartWorker) -> None:
    batch = await producer.submit([fail.spec("first"), *(square.spec(n) for n in range(9))])
    async with worker():
        before = await batch.results()
        await until(lambda: not redis.zcard(keys.queue("default")))
        # The chunks are there again: their worker is said to have died before it could let go of them.
        for first in range(10):
            payload = encode_payload(batch.id, first, 1, time.time())
            redis.set(f"arq:job:{batch.id}:{first}", payload, px=60_000)
            redis.zadd(keys.queue("default"), {f"{batch.id}:{first}": 1})
        redis.pexpire(keys.queue("default"), 60_000)
        redis.lpush(keys.wake("default"), 1)
        redis.pexpire(keys.wake("default"), 60_000)
        await until(lambda: not redis.zcard(keys.queue("default")))
        assert await batch.results() == before
    status = await batch.status()
    assert (status.success, status.failure, status.done, status.total) == (9, 1, 10, 10)


async def test_a_chunk_that_comes_again_after_the_end_prolongs_no_lifetime(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    batch = await producer.submit([fail.spec("no")], keep_results=30)
    async with worker():
        await batch.wait()
        await until(lambda: not redis.zcard(keys.queue("default")))
        redis.set(f"arq:job:{batch.id}:0", encode_payload(batch.id, 0, 1, time.time()), px=60_000)
        redis.zadd(keys.queue("default"), {f"{batch.id}:0": 1})
        redis.pexpire(keys.queue("default"), 60_000)
        redis.lpush(keys.wake("default"), 1)
        redis.pexpire(keys.wake("default"), 60_000)
        await until(lambda: not redis.zcard(keys.queue("default")))
    for key in (keys.batch(batch.id), keys.chunks(batch.id), keys.results(batch.id), keys.done(batch.id)):
        assert redis.ttl(key) <= 30, f"{key}: a header without results would keep its collectors waiting"


async def test_a_batch_that_is_deleted_under_its_jobs_leaves_nothing_behind(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([hang.spec(), nap.spec(0.1)], timeout=30)
        await until_running(batch, 2)
        redis.delete(*redis.keys(f"straggler:batch:{batch.id}*"))
        await asyncio.sleep(0.2)
    async with worker():  # what was handed back is forgotten by the next who looks
        await until(lambda: not redis.keys(f"*{batch.id}*"))
