"""Whatever bytes stand in our keys: no worker dies of it, other batches go on, who collects hears what is spoilt."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchLostError, ProtocolError
from protocol.jobs import JobSpec
from protocol.settings import Settings
from straggler import current_job, job
from tests.conftest import PATIENCE, StartWorker, blocking_client, until
from tests.integration.test_spoilt import FIELDS, TYPES, put
from tests.jobs import square
from workers.leases import health_key
from workers.worker import StragglerWorker

JOBS = 6
QUEUE, WAKE = keys.queue("default"), keys.wake("default")
BEFORE = (
    *(make("b") for make in (keys.batch, keys.chunks, keys.done, keys.results)),
    *(make("b") for make in (keys.holders, keys.crashes, keys.retries)),
    *(f"{prefix}b:0" for prefix in (keys.ARQ_JOB, keys.ARQ_IN_PROGRESS, keys.ARQ_RETRY)),
    f"{keys.ARQ_JOB}b:0+1",
    QUEUE, WAKE, keys.workers("default"), health_key("default"),
)  # fmt: skip
# What a submission needs; one that meets another kind of value there is refused, and names it (test_spoilt).
SHARED = {QUEUE, WAKE, keys.workers("default")}
OF_THE_WORKER = (keys.worker, keys.claim)


@job
async def fail_at_first(number: int) -> int:
    if current_job().attempt == 1:
        raise ValueError(number)
    return number


async def submit(producer: Producer, **options: Any) -> None:
    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        for number in range(JOBS):
            yield fail_at_first.spec(number) if number % 3 == 1 else square.spec(number)

    await producer.submit(stream(), batch_id="b", retries=1, backoff=0.01, **options)


async def run_healthy(producer: Producer) -> None:
    """Run a batch whose keys are as they should be."""
    async with asyncio.timeout(PATIENCE):
        batch = await producer.submit(square.map(range(5)))
        assert await batch.gather() == [0, 1, 4, 9, 16]


def spoil(redis: Any, key: str, kind: str, value: bytes) -> None:
    put(redis, key, kind, value)
    if key.startswith(keys.ARQ_IN_PROGRESS):
        redis.pexpire(key, 200)  # somebody's lease, until it lapses


def spoil_any(redis: Any, data: st.DataObject, names: tuple[str, ...]) -> str:
    """Write any bytes into one of these keys, as the type that it should have or as another; returns its name."""
    value = data.draw(st.binary(min_size=1, max_size=20), "value")
    key = data.draw(st.sampled_from(names), "key")
    kind = data.draw(st.sampled_from(("its own", *TYPES)), "kind")
    if kind != "its own":
        spoil(redis, key, kind, value)
    elif key == keys.batch("b"):
        redis.hset(key, data.draw(st.sampled_from(FIELDS), "field"), value)
    elif key in (keys.chunks("b"), keys.holders("b"), keys.crashes("b"), keys.retries("b")):
        redis.hset(key, data.draw(st.sampled_from([b"0", b"1", b"b:0", value]), "field"), value)
        redis.pexpire(key, 60_000)
    elif key == QUEUE:
        redis.zadd(key, {value: data.draw(st.sampled_from([0.0, -1e300, 1e13, float("inf")]), "due")})
        redis.pexpire(key, 60_000)
    elif key == keys.results("b"):
        put(redis, key, "stream", value)
    else:
        spoil(redis, key, "string", value)
    return key


async def collect(producer: Producer) -> None:
    """Collect the spoilt batch: each job has its result, or an error of ours names a key."""
    try:
        async with asyncio.timeout(PATIENCE):
            results = await (await producer.attach("b")).results()
    except ProtocolError as error:
        event(f"names {error.key}")
    except BatchLostError:
        event("lost")
    else:
        event("results")
        assert [result.index for result in results] == list(range(JOBS))


def assert_at_work(worker: StragglerWorker) -> None:
    crew = worker.crew
    assert crew.recorder._task is not None
    assert not any(task.done() for task in (*crew.leases._tasks, crew.recorder._task))


@pytest.mark.redis
@settings(
    max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_no_bytes_in_our_keys_stop_a_worker(redis_url: str, worker: StartWorker, data: st.DataObject) -> None:
    errors: list[Any] = []

    async def check(redis: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with Producer(redis_url, settings=Settings()) as producer:
            await submit(producer, deadline=1.0, grace=0)
            spoilt = {spoil_any(redis, data, BEFORE) for _ in range(data.draw(st.integers(1, 3), "how many"))}
            async with worker(lease=1.0, concurrency=4) as started:
                own = tuple(make(started.crew.worker_id) for make in OF_THE_WORKER)
                spoil_any(redis, data, own)
                if not spoilt & SHARED:
                    await run_healthy(producer)
                await collect(producer)
                redis.delete(*SHARED)
                await run_healthy(producer)
                assert_at_work(started)
        gc.collect()

    with blocking_client(redis_url) as redis:
        redis.flushall()
        asyncio.run(check(redis))
    assert not errors


# ---- without a deadline, too, what can be told from other keys is mended, and the batch ends


MENDED = {
    "payload": f"{keys.ARQ_JOB}b:0",
    "lease": f"{keys.ARQ_IN_PROGRESS}b:0",
    "holders": keys.holders("b"),
    "crashes": keys.crashes("b"),
    "retries": keys.retries("b"),
    "wake": WAKE,
}


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["string", "zset"])
@pytest.mark.parametrize("which", MENDED)
async def test_jobs_run_though_a_key_beside_them_is_spoilt(
    producer: Producer, worker: StartWorker, redis: Any, which: str, kind: str
) -> None:
    await submit(producer)
    spoil(redis, MENDED[which], kind, b"\xff")
    async with worker(lease=1.0), asyncio.timeout(PATIENCE):
        assert await (await producer.attach("b")).gather() == [0, 1, 4, 9, 4, 25]


@pytest.mark.redis
async def test_payload_of_a_retry_that_is_gone_is_written_anew(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    await submit(producer)
    async with worker(lease=1.0):
        batch = await producer.attach("b")
        await until(lambda: redis.exists(f"{keys.ARQ_JOB}b:0+1") or redis.hexists(keys.batch("b"), "finished_at"))
        redis.delete(f"{keys.ARQ_JOB}b:0+1")
        async with asyncio.timeout(PATIENCE):
            assert await batch.gather() == [0, 1, 4, 9, 4, 25]


@pytest.mark.redis
async def test_queue_of_another_type_holds_retries_until_it_is_mended(
    producer: Producer, worker: StartWorker, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @job
    async def spoil_and_fail() -> int:
        if current_job().attempt == 1:
            spoil(redis, QUEUE, "string", b"x")
            raise ValueError("once")
        return 7

    async with worker(lease=1.0):
        batch = await producer.submit([spoil_and_fail.spec()], retries=1, backoff=0.01)
        await until(lambda: f"brought back into Redis key '{QUEUE}'" in caplog.text)
        redis.delete(QUEUE)
        async with asyncio.timeout(PATIENCE):
            assert await batch.gather() == [7]


@pytest.mark.redis
async def test_count_that_is_no_number_holds_up_no_other_batch(
    producer: Producer, worker: StartWorker, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await submit(producer)
    redis.hset(keys.batch("b"), "success", "many")
    async with worker():
        await until(lambda: "results cannot be recorded and are dropped" in caplog.text)
        with pytest.raises(ProtocolError, match=f"'{keys.batch('b')}'"):
            await producer.attach("b")
        await run_healthy(producer)
