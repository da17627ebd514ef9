"""From jobs to chunks in Redis: every job once, whatever the source is and however often it is submitted."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from producer import cutting
from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.chunks import decode_chunk
from protocol.errors import (
    ArgumentsError,
    BatchClosedError,
    BatchLostError,
    BatchNotFoundError,
    OptionError,
    PayloadTooLargeError,
    UsageError,
)
from protocol.jobs import JobSpec
from protocol.settings import Settings
from tests.conftest import PATIENCE, StartWorker, until
from tests.jobs import echo, square


def squares(count: int, cut_off_at: int | None = None) -> Iterator[JobSpec[int]]:
    for number in range(count):
        if number == cut_off_at:
            raise OSError("the disk is gone")
        yield square.spec(number)


async def stream(jobs: Iterable[JobSpec[Any]], pause_every: int = 0) -> AsyncIterator[JobSpec[Any]]:
    for number, job in enumerate(jobs):
        if pause_every and number % pause_every == 0:
            await asyncio.sleep(0.001)
        yield job


def jobs_in_redis(redis: Any, batch_id: str) -> list[Any]:
    """Read all jobs of a batch in their order; chunks must follow each other without gap or overlap."""
    found: list[Any] = []
    for first, chunk in sorted((int(f), c) for f, c in redis.hgetall(keys.chunks(batch_id)).items()):
        assert first == len(found)
        found += [job.kwargs["number"] for job in decode_chunk(first, chunk, "key")]
    return found


def waiting(redis: Any) -> list[bytes]:
    return list(redis.zrange(keys.queue("default"), 0, -1))


@pytest.mark.parametrize("count", [0, 1, 257, 1024, 5000])
@pytest.mark.parametrize("form", ["list", "generator", "specs", "stream", "slow stream"])
async def test_every_job_of_every_source_is_in_redis_once(
    producer: Producer, redis: Any, form: str, count: int
) -> None:
    sources: dict[str, Callable[[], Any]] = {
        "list": lambda: list(squares(count)),
        "generator": lambda: squares(count),
        "specs": lambda: square.map(range(count)),
        "stream": lambda: stream(squares(count)),
        "slow stream": lambda: stream(squares(min(count, 300)), pause_every=100),
    }
    batch: Batch[Any] = await producer.submit(sources[form]())
    expected = min(count, 300) if form == "slow stream" else count
    assert jobs_in_redis(redis, batch.id) == list(range(expected))
    assert len(waiting(redis)) == redis.hlen(keys.chunks(batch.id))
    status = await batch.status()
    assert (status.total, status.closed, status.queued) == (expected, True, expected)
    assert status.complete == (expected == 0)


async def test_results_of_a_slow_source_come_before_it_ends(producer: Producer, worker: StartWorker) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[JobSpec[int]]:
        yield square.spec(1)
        yield square.spec(2)
        await go_on.wait()
        yield square.spec(3)

    async with worker():
        submitting = asyncio.create_task(producer.submit(slow(), batch_id="slow"))
        while True:  # the batch is there once the first jobs have been sent
            try:
                batch = await producer.attach("slow")
                break
            except BatchNotFoundError:
                await asyncio.sleep(0.005)
        seen = []
        async for result in batch.as_completed():
            seen.append(result.unwrap())
            if len(seen) == 2:
                go_on.set()
        assert sorted(seen) == [1, 4, 9]
        await submitting


async def test_jobs_of_a_steady_source_are_on_their_way_while_it_goes_on(
    producer: Producer, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "LONGEST_WAIT", 0.25)  # as it is but for tests

    async def steady() -> AsyncIterator[JobSpec[Any]]:
        for number in range(4000):  # never so fast that a chunk is full, nor so slow that it is cut short
            if redis.hget(keys.batch("steady"), "total") not in (None, b"0"):
                return
            yield square.spec(number)
            await asyncio.sleep(0.005)
        raise AssertionError("nothing has travelled")

    async with asyncio.timeout(60):
        await producer.submit(steady(), batch_id="steady")


@pytest.mark.parametrize("cut_off_at", [0, 256, 700])
@pytest.mark.parametrize("form", ["generator", "stream"])
async def test_a_submission_that_was_cut_off_is_run_again_without_a_job_twice(
    producer: Producer, redis: Any, worker: StartWorker, form: str, cut_off_at: int
) -> None:
    wrap: Any = stream if form == "stream" else iter
    # A long source: what comes before the cut has been sent in part by then.
    source = itertools.chain(squares(5_000), squares(1, cut_off_at=0))
    with pytest.raises(OSError, match="the disk is gone"):
        await producer.submit(wrap(source), batch_id="again")
    sent = redis.hget(keys.batch("again"), "total")
    assert sent is not None
    assert 0 < int(sent) <= 5_000
    redis.flushall()

    with pytest.raises(OSError, match="the disk is gone"):
        await producer.submit(wrap(squares(1000, cut_off_at)), batch_id="again")
    async with worker():
        batch = await producer.submit(wrap(squares(1000)), batch_id="again")
        results = [result async for result in batch.as_completed()]
    assert sorted(result.index for result in results) == list(range(1000))
    assert await batch.gather() == [number**2 for number in range(1000)]
    assert (await batch.status()).success == 1000


async def test_two_producers_of_the_same_batch_add_nothing_twice(redis_url: str, redis: Any) -> None:
    async with Producer(redis_url, settings=Settings()) as one, Producer(redis_url, settings=Settings()) as two:
        # Unlike sources are cut into unlike chunks.
        await asyncio.gather(
            one.submit(squares(9000), batch_id="both"),
            two.submit(stream(squares(9000)), batch_id="both"),
            one.submit(square.map(range(9000)), batch_id="both"),
        )
    assert jobs_in_redis(redis, "both") == list(range(9000))
    assert len(waiting(redis)) == redis.hlen(keys.chunks("both"))


@pytest.mark.parametrize("wrap", [list, iter, stream])
async def test_more_jobs_for_a_closed_batch_are_refused_and_not_dropped_in_silence(
    producer: Producer, redis: Any, wrap: Any
) -> None:
    await producer.submit(squares(700), batch_id="b")
    with pytest.raises(BatchClosedError, match="batch 'b' is closed with 700 jobs, and nothing beyond") as raised:
        await producer.submit(wrap(list(squares(5000))), batch_id="b")
    assert raised.value.total == 700
    assert jobs_in_redis(redis, "b") == list(range(700))
    for count in (700, 300, 0):
        await producer.submit(wrap(list(squares(count))), batch_id="b")
    assert jobs_in_redis(redis, "b") == list(range(700))


async def test_batch_that_is_gone_in_the_middle_of_its_submission_is_lost_and_not_begun_anew(
    producer: Producer, redis: Any
) -> None:
    def jobs(remaining: int) -> Iterator[JobSpec[int]]:
        yield from squares(20_000)
        redis.flushall()
        yield from squares(remaining)

    # What is on its way when the batch goes: many chunks, one, none at all.
    for remaining in (10_000, 100, 0):
        with pytest.raises(BatchLostError, match="batch 'b' was in this Redis and is gone"):
            await producer.submit(jobs(remaining), batch_id="b")
        assert redis.dbsize() == 0
    assert (await (await producer.submit(squares(10), batch_id="b")).status()).total == 10


async def test_batch_that_another_producer_has_begun_anew_is_lost_to_the_first(
    producer: Producer, redis_url: str, redis: Any
) -> None:
    go_on = asyncio.Event()

    async def slow(last: int) -> AsyncIterator[JobSpec[int]]:
        for number in range(300):
            yield square.spec(number)
        await go_on.wait()
        for number in range(last):
            yield square.spec(number)

    for last in (300, 0):
        go_on.clear()
        submitting = asyncio.create_task(producer.submit(slow(last), batch_id="b"))
        await until(lambda: redis.hget(keys.batch("b"), "total") == b"300")
        redis.flushall()
        async with Producer(redis_url, settings=Settings()) as other:
            await other.submit(squares(50), batch_id="b")
            redis.hset(keys.batch("b"), "closed", 0)  # it has not come to its end yet
        go_on.set()
        with pytest.raises(BatchLostError):
            await submitting
        assert jobs_in_redis(redis, "b") == list(range(50))
        redis.flushall()


async def test_deadline_is_written_once_on_redis_clock(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(squares(10), batch_id="b", deadline=100)
    status = await batch.status()
    assert status.deadline == pytest.approx(status.created_at + 100, abs=1e-3)
    await (await producer.submit(squares(10), batch_id="b", deadline=500)).status()
    assert (await batch.status()).deadline == status.deadline
    assert (await (await producer.submit(squares(10))).status()).deadline is None


async def test_submitting_a_finished_batch_again_changes_nothing(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(100)), batch_id="once")
        before = await batch.results()
        again = await producer.submit(square.map(range(100)), batch_id="once")
        assert await again.results() == before
    assert waiting(redis) == []
    assert redis.xlen(keys.results("once")) >= 2


async def test_an_empty_batch_is_complete_at_once(producer: Producer) -> None:
    batch: Batch[Any] = await producer.submit([])
    assert await batch.results() == []
    assert await batch.gather() == []
    assert [result async for result in batch.as_completed()] == []
    assert (await batch.status()).complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "batch option timeout: .*greater than 0, got 0"),
        ({"timeout": float("nan")}, "batch option timeout: .*got nan"),
        ({"grace": -1}, "batch option grace: .*got -1"),
        ({"keep_results": 0}, "batch option keep_results: .*got 0"),
        ({"deadline": 0}, "batch option deadline: .*got 0"),
        ({"retry_on": ()}, "batch option retry_on: .*at least 1 item"),
        ({"timout": 3}, r"batch option timout: .*not permitted, got 3; did you mean timeout( or .*)?\?$"),
        ({"batch_id": "a b"}, "batch_id 'a b' cannot be"),
        ({"batch_id": ""}, "batch_id '' cannot be"),
        ({"batch_id": "x" * 101}, "batch_id 'xxx"),
    ],
)
async def test_an_option_that_cannot_be_is_refused_before_anything_is_sent(
    producer: Producer, redis: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        await producer.submit(square.map([1]), **options)
    assert "\n" not in str(raised.value)
    assert redis.dbsize() == 0


@pytest.mark.parametrize("wrap", [list, iter, stream])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (square.spec("x"), ArgumentsError, "job 700: square: number: .*got 'x'"),
        (echo.spec("x" * (1 << 20)), PayloadTooLargeError, "job 700: the arguments of job 'echo' take 1,048,"),
        (7, UsageError, "job 700 is 7, not a JobSpec"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_by_its_number_and_mended_later(
    producer: Producer, redis: Any, wrap: Any, bad: Any, error: type[Exception], message: str
) -> None:
    jobs = [*squares(700), bad, *squares(600)]
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(error, match=message) as raised:
            await producer.submit(wrap(jobs), batch_id="mended")
    assert "\n" not in str(raised.value)
    jobs[700] = square.spec(700)
    batch = await producer.submit(wrap(jobs), batch_id="mended")
    assert jobs_in_redis(redis, batch.id) == [*range(700), 700, *range(600)]


async def test_a_cancelled_submission_ends_at_once_and_can_be_run_again(producer: Producer, redis: Any) -> None:
    async def endless() -> AsyncIterator[JobSpec[int]]:
        for number in itertools.count():
            yield square.spec(number)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await producer.submit(endless(), batch_id="cut")
    batch = await producer.submit(squares(1000), batch_id="cut")
    status = await batch.status()
    assert status.closed
    assert jobs_in_redis(redis, "cut") == list(range(status.total))


async def test_large_arguments_travel_in_smaller_chunks(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(stream(echo.spec("x" * 75_000) for _ in range(20)))
    sizes = [len(chunk) for chunk in redis.hvals(keys.chunks(batch.id))]
    assert max(sizes) < 1 << 19
    assert len(sizes) == 20 // 4


@pytest.mark.redis
async def test_a_submission_makes_no_round_trip_a_job(redis_url: str, redis: Any) -> None:
    async with Producer(redis_url, settings=Settings()) as producer:
        await producer.submit(squares(1))  # teaches Redis the script
        redis.config_resetstat()
        await producer.submit(squares(30_000))
    stats: Any = redis.info("commandstats")
    sent = sum(stat["calls"] for name, stat in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))
    assert sent == -(-30_000 // 256), "one script call a chunk, many in a trip"
    reads: Any = redis.info("stats")
    assert reads["total_reads_processed"] < 30_000 / 20


@pytest.mark.redis
async def test_memory_is_flat_in_the_size_of_the_batch(producer: Producer) -> None:
    async def peak(count: int) -> int:
        tracemalloc.start()
        try:
            await producer.submit(squares(count))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await peak(1000)
    assert await peak(30_000) < 1.5 * await peak(5_000)


async def test_every_payload_in_redis_is_json(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(1000)), name="for people", metadata={"a": [1]})
    for chunk in redis.hvals(keys.chunks(batch.id)):
        json.loads(chunk)
    for chunk_id in waiting(redis):
        assert json.loads(redis.get(b"arq:job:" + chunk_id) or b"")["f"] == "straggler_chunk"
    assert json.loads(redis.hget(keys.batch(batch.id), "options") or b"") == {
        "name": "for people", "metadata": {"a": [1]},
    }  # fmt: skip


@pytest.mark.parametrize("queue", ["a b", "a\n", "q:1", "x" * 101])
def test_a_queue_that_no_worker_could_be_told_of_is_refused(queue: str) -> None:
    with pytest.raises(OptionError, match=r"queue '.*' cannot be: use 1 to 100 letters"):
        Producer("redis://localhost", queue=queue, settings=Settings())
