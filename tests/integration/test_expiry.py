"""A batch with a deadline closes on time, whatever became of its workers and its producer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from producer import watch
from producer.batch import Batch
from producer.control import expiry
from producer.control.expiry import Expiry
from producer.producer import Producer
from producer.status import parse_options, read_header
from protocol import keys
from protocol.clock import RedisClock
from protocol.connection import Scripts
from protocol.errors import BatchClosedError, BatchLostError, ProtocolError
from protocol.jobs import JobSpec
from protocol.results import Result, TimeoutResult
from protocol.settings import Settings
from tests.conftest import PATIENCE, StartProcess, StartWorker, until_running
from tests.jobs import echo, hang, nap, square


def ends(results: list[Result[Any]]) -> Counter[str]:
    """Count how jobs ended; a time-out that is not the batch's is a failure of the test."""
    assert all(result.phase == "batch" for result in results if isinstance(result, TimeoutResult))
    return Counter(result.stopped if isinstance(result, TimeoutResult) else result.status for result in results)


def hold(redis: Any, chunk_id: str) -> None:
    """Lease a chunk, as a worker would that is never heard of again."""
    redis.set(keys.ARQ_IN_PROGRESS + chunk_id, "a-dead-worker", px=30_000)


def let_time_run_out(redis: Any, batch: Batch[Any]) -> None:
    """Let the deadline of a batch pass now."""
    redis.hset(keys.batch(batch.id), "deadline", time.time())


async def expire(producer: Producer, batch_id: str, *, is_final: bool) -> None:
    batch = await producer.attach(batch_id)
    options = parse_options(batch_id, await read_header(producer.redis, batch_id))
    await Expiry(producer.scripts, await batch.status(), options, producer.clock).run(is_final=is_final)


# ---- on time


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at an idle batch far too late."""
    monkeypatch.setattr(watch, "FIRST_BLOCK", 600)
    monkeypatch.setattr(watch, "LONGEST_BLOCK", 600)


@pytest.mark.usefixtures("patient")
async def test_batch_without_any_worker_closes_at_its_deadline(producer: Producer, redis: Any) -> None:
    began = time.time()
    jobs = [square.spec(1), echo.spec("x", key="a key"), *square.map(range(600))]
    batch: Batch[Any] = await producer.submit(jobs, deadline=1.0, grace=30)
    results = await batch.results()
    assert ends(results) == {"not started": 602}
    first, second = results[:2]
    assert isinstance(second, TimeoutResult)
    assert (second.limit, second.function, second.key, second.attempt) == (1.0, "echo", "a key", 1)
    assert (first.function, first.worker, first.started_at) == ("square", None, None)
    assert first.enqueued_at is not None
    assert first.finished_at is not None
    assert 0 <= first.enqueued_at - began < 10
    assert 1.0 <= first.finished_at - first.enqueued_at < 15, "the grace is for what has started"
    status = await batch.status()
    assert (status.complete, status.timeout) == (True, 602)
    assert status.deadline == pytest.approx(first.enqueued_at + 1, abs=0.5)
    assert not redis.zcard(keys.queue("default"))
    assert not redis.keys("arq:*")


@pytest.mark.redis
async def test_what_a_dead_worker_held_is_abandoned_after_the_grace(
    producer: Producer, redis: Any, worker_process: StartProcess
) -> None:
    worker = worker_process(concurrency=2)
    batch: Batch[Any] = await producer.submit([hang.spec() for _ in range(20)], deadline=2, grace=0.3)
    await until_running(batch, 2)
    held = (await batch.status()).running
    worker.kill()
    leases = redis.keys(f"{keys.ARQ_IN_PROGRESS}{batch.id}*")
    results = await batch.results()
    assert ends(results) == {"abandoned": held, "not started": 20 - held}
    deadline = (await batch.status()).deadline
    assert deadline is not None
    for result in results:
        assert isinstance(result, TimeoutResult)
        assert result.finished_at is not None
        assert result.finished_at >= deadline + (0.55 if result.stopped == "abandoned" else 0.05)
    left = redis.keys("arq:job:*")
    assert redis.zcard(keys.queue("default")) == len(left) == len(leases) > 0
    assert all(redis.ttl(key) <= 86_400 for key in left), "it lapses with the batch"


async def test_batch_whose_producer_died_in_the_middle_of_submitting_closes(producer: Producer, redis_url: str) -> None:
    async def cut_off() -> AsyncIterator[JobSpec[int]]:
        for number in range(300):
            yield square.spec(number)
        raise OSError("the producer is gone")

    with pytest.raises(OSError, match="is gone"):
        await producer.submit(cut_off(), batch_id="b", deadline=0.3)
    async with Producer(redis_url, settings=Settings()) as other:
        batch = await other.attach("b")
        total = (await batch.status()).total
        assert ends(await batch.results()) == {"not started": total}
        status = await batch.status()
    assert (status.closed, status.complete) == (True, True)
    assert total > 0


@pytest.mark.usefixtures("patient")
async def test_collector_that_comes_after_the_deadline_closes_it_at_once(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(10)), deadline=0.3, grace=0, batch_id="late")
    hold(redis, "late:0")
    await asyncio.sleep(0.3)
    assert (await (await producer.attach(batch.id)).wait()).pending == []  # it does not wait for a block to end


@pytest.mark.usefixtures("patient")
async def test_results_that_come_and_come_do_not_keep_a_batch_open(producer: Producer, redis: Any) -> None:
    row = b'[{"index":0,"status":"success","function":"square","value":0}]'
    batch = await producer.submit(square.map(range(10)), deadline=0.3, grace=0)
    hold(redis, f"{batch.id}:0")

    async def flood() -> None:
        while True:
            async with producer.redis.pipeline(transaction=False) as pipe:
                for _ in range(20):
                    pipe.xadd(keys.results(batch.id), {"common": b"{}", "rows": row}, maxlen=10_000)
                await pipe.execute()

    flooding = asyncio.create_task(flood())
    try:
        async with asyncio.timeout(PATIENCE):
            while not (await batch.status()).complete:
                async for result in batch.as_completed():
                    if result.is_timeout:
                        break
    finally:
        flooding.cancel()
        await asyncio.wait({flooding})


async def test_results_of_workers_stay_and_each_job_has_one(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker(concurrency=10):
        batch: Batch[Any] = await producer.submit([*square.map(range(50)), hang.spec()], batch_id="b", deadline=60)
        while [(await batch.status()).success, (await batch.status()).running] != [50, 1]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        redis.hset(keys.batch("b"), "deadline", time.time() - 10)
        assert ends(await batch.results()) == {"success": 50, "abandoned": 1}

        jobs: list[JobSpec[Any]] = [*square.map(range(50)), *(nap.spec(60) for _ in range(10)), *square.map(range(50))]
        batch = await producer.submit(jobs, deadline=1, grace=0.1)
        found = [result async for result in batch.as_completed()]
    assert sorted(result.index for result in found) == list(range(110))
    assert ends(found).total() == 110


async def test_submission_that_goes_on_past_the_deadline_is_told(producer: Producer) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[JobSpec[int]]:
        yield square.spec(1)
        yield square.spec(2)
        await go_on.wait()
        yield square.spec(3)

    submitting = asyncio.create_task(producer.submit(slow(), batch_id="b", deadline=0.3, grace=0))
    while not await producer.redis.exists(keys.batch("b")):  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.005)
    batch = await producer.attach("b")
    assert ends(await batch.results()) == {"not started": 2}
    go_on.set()
    with pytest.raises(BatchClosedError, match="batch 'b' is closed with 2 jobs, and nothing beyond them was added"):
        await submitting
    assert (await batch.status()).total == 2


# ---- whatever state it is found in


async def test_empty_open_batch_closes(producer: Producer, redis: Any) -> None:
    batch: Batch[Any] = await producer.submit([], batch_id="b", deadline=0.2)
    redis.delete(keys.results("b"))
    redis.hset(keys.batch("b"), "closed", 0)
    redis.hdel(keys.batch("b"), "finished_at")
    batch = await producer.attach("b")  # who has seen it closed would take it for one that a restart has cut short
    assert await batch.results() == []


async def test_two_collectors_at_once_give_each_job_one_result(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3000)), deadline=60, grace=0)
    other = await producer.attach(batch.id)
    let_time_run_out(redis, batch)
    mine, theirs = await asyncio.gather(batch.results(), other.results())
    assert mine == theirs
    assert [result.index for result in mine] == list(range(3000))
    assert int(redis.hget(keys.batch(batch.id), "timeout")) == 3000


@pytest.mark.parametrize("is_final", [False, True])
async def test_expiry_may_be_cut_off_anywhere_and_run_again(producer: Producer, redis: Any, is_final: bool) -> None:
    batch = await producer.submit(square.map(range(20_000)), deadline=60)
    trips = 0
    run_all = Scripts.run_all

    class CutOffError(Exception):
        pass

    async def dying(self: Scripts, calls: Any) -> Any:
        nonlocal trips
        trips += 1
        if trips % 3 == 0:
            raise CutOffError
        return await run_all(self, calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scripts, "run_all", dying)
        while True:
            try:
                await expire(producer, batch.id, is_final=is_final)
                break
            except CutOffError:
                continue
    assert trips > 6
    await expire(producer, batch.id, is_final=is_final)
    assert [result.index for result in await batch.results()] == list(range(20_000))
    assert int(redis.hget(keys.batch(batch.id), "timeout")) == 20_000


async def test_job_that_waits_for_its_retry_goes_by_its_own_chunk(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(4)), deadline=60, grace=0.4, batch_id="b")
    [(first, *_)] = [sorted(int(field) for field in redis.hkeys(keys.chunks("b")))]
    redis.hset(keys.retries("b"), mapping={"0": 1, "1": 2, "2": "x"})
    redis.pexpire(keys.retries("b"), 60_000)
    for chunk in redis.hkeys(keys.chunks("b")):
        hold(redis, f"b:{int(chunk)}")
    hold(redis, keys.retry_id("b", 0, 1))
    let_time_run_out(redis, batch)
    found = [result async for result in batch.as_completed()]
    told = {result.index: (result.stopped, result.attempt) for result in found if isinstance(result, TimeoutResult)}
    assert first == 0
    assert found[0].index == 0, "its own chunk was held by nobody"
    assert told == {0: ("not started", 1), 1: ("abandoned", 3), 2: ("abandoned", 1), 3: ("abandoned", 1)}


@pytest.mark.parametrize("spoil", ["bytes", "field gone", "key gone", "another type"])
async def test_jobs_of_a_chunk_that_cannot_be_read_get_their_results(
    producer: Producer, redis: Any, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch = await producer.submit(square.map(range(1024)), deadline=60, grace=0.1)
    chunks = keys.chunks(batch.id)
    field = sorted(redis.hkeys(chunks))[0]
    count = 1024 // redis.hlen(chunks)
    if spoil == "bytes":
        redis.hset(chunks, field, b"\xff?")
        redis.hset(chunks, mapping={"not a number": "?", "9999999": "[]", "77": "{}"})
    elif spoil == "field gone":
        redis.hdel(chunks, field)
    else:
        redis.delete(chunks)
        if spoil == "another type":
            redis.set(chunks, "x", px=60_000)
    let_time_run_out(redis, batch)
    results = await batch.results()
    assert [result.index for result in results] == list(range(1024))
    assert all(result.is_timeout for result in results)
    unknown = sum(result.function == "unknown" for result in results)
    assert unknown == count if spoil in ("bytes", "field gone") else unknown == 1024
    if spoil in ("bytes", "another type"):
        assert chunks in caplog.text
    assert (await batch.status()).timeout == 1024


@pytest.mark.redis
@pytest.mark.parametrize("key", [keys.done, keys.results])
async def test_key_of_another_type_is_named(producer: Producer, redis: Any, key: Any) -> None:
    batch = await producer.submit(square.map(range(10)), deadline=60, grace=0)
    redis.delete(key(batch.id))
    redis.hset(key(batch.id), "a", "b")
    redis.pexpire(key(batch.id), 60_000)
    let_time_run_out(redis, batch)
    with pytest.raises(ProtocolError, match=f"{key(batch.id)}'"):
        await batch.results()


@pytest.mark.parametrize("is_closed", [False, True])
async def test_batch_that_is_gone_is_not_begun_anew(producer: Producer, redis: Any, is_closed: bool) -> None:
    batch = await producer.submit(square.map(range(10)), deadline=1)
    redis.hset(keys.batch(batch.id), "closed", int(is_closed))
    header = await read_header(producer.redis, batch.id)
    status = await (await producer.attach(batch.id)).status()
    closing = Expiry(producer.scripts, status, parse_options(batch.id, header), RedisClock())
    redis.flushall()
    if is_closed:
        await closing.run(is_final=False)  # there are no chunks any more
    with pytest.raises(BatchLostError):
        await closing.run(is_final=True)
    assert redis.dbsize() == 0


async def test_sweep_takes_its_jobs_a_page_at_a_time(
    producer: Producer, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_BITS_A_PAGE", 64)
    batch = await producer.submit(square.map(range(1001)), deadline=60)
    redis.delete(keys.chunks(batch.id))
    await expire(producer, batch.id, is_final=True)
    assert [result.index for result in await batch.results()] == list(range(1001))


async def test_a_batch_takes_no_jobs_past_its_deadline_though_nobody_has_closed_it(producer: Producer) -> None:
    async def stream() -> AsyncIterator[JobSpec[Any]]:
        yield square.spec(1)
        await asyncio.sleep(0.6)
        yield square.spec(2)

    with pytest.raises(BatchClosedError, match="closed with 1 jobs"):
        await producer.submit(stream(), batch_id="late", deadline=0.3, grace=0)
    [result] = await (await producer.attach("late")).results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.stopped) == ("batch", "not started")
