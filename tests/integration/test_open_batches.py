"""Open batches: jobs are added at any time, by anybody, until the batch is closed or nobody is left to add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.errors import (
    ArgumentsError,
    BatchClosedError,
    BatchLostError,
    OptionError,
    PayloadTooLargeError,
    ProtocolError,
    UsageError,
)
from protocol.settings import Settings
from straggler import JobSpec
from tests.conftest import StartWorker, until
from tests.jobs import echo, square, wait_for_file


async def values(batch: Batch[Any]) -> list[Any]:
    return await batch.gather()


# ---- add


async def test_jobs_are_added_until_the_batch_is_closed(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch(name="growing")
        assert await batch.add(square.map(range(3))) == [0, 1, 2]
        assert await batch.add([]) == []
        assert await batch.add(square.spec(3)) == [3]
        waited = await batch.wait(among=range(4))
        assert (len(waited.done), waited.pending) == (4, [])
        assert not (await batch.status()).complete
        assert await batch.add(iter([square.spec(4)])) == [4]
        await batch.close()
        await batch.close()
        assert await values(batch) == [n * n for n in range(5)]
        with pytest.raises(BatchClosedError, match="5 jobs"):
            await batch.add([square.spec(5)])
    status = await batch.status()
    assert (status.name, status.total, status.complete) == ("growing", 5, True)


async def test_an_async_source_is_sent_as_it_comes(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()

        async def source() -> AsyncIterator[JobSpec[int]]:
            yield square.spec(2)
            async for result in batch.as_completed():  # the first is done before the second is there
                yield square.spec(result.value_or(0))
                break

        assert await batch.add(source()) == [0, 1]
        await batch.close()
        assert await values(batch) == [4, 16]


async def test_many_jobs_are_added_in_order(producer: Producer, redis: Any) -> None:
    batch = await producer.open_batch()
    assert await batch.add(square.map(range(2500))) == list(range(2500))
    assert redis.zcard(keys.queue("default")) == 10
    assert (await batch.status()).queued == 2500


async def test_large_jobs_travel_in_chunks_of_their_own(producer: Producer, redis: Any, worker: StartWorker) -> None:
    batch = await producer.open_batch()
    await batch.add([echo.spec("x" * 700_000) for _ in range(3)])
    assert redis.hlen(keys.chunks(batch.id)) == 3
    async with worker():
        await batch.close()
        assert [len(value) for value in await values(batch)] == [700_000] * 3


async def test_processes_add_at_the_same_time_and_each_is_told_its_own(
    producer: Producer, worker: StartWorker, redis_url: str
) -> None:
    async def add_from(start: int) -> dict[int, int]:
        async with Producer(redis_url, settings=Settings()) as other:
            batch = await other.attach("b")
            told: dict[int, int] = {}
            for number in range(start, start + 40, 4):
                indexes = await batch.add(square.map(range(number, number + 4)))
                told.update(zip(indexes, range(number, number + 4), strict=True))
            return told

    batch = await producer.open_batch(batch_id="b")
    async with worker():
        told = await asyncio.gather(*(add_from(start) for start in (0, 100, 200, 300)))
        await batch.close()
        expected = {index: number for one in told for index, number in one.items()}
        assert len(expected) == 160
        assert await values(batch) == [expected[index] ** 2 for index in range(160)]


async def test_one_handle_may_add_from_many_tasks(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.open_batch()
    told = await asyncio.gather(*(batch.add([square.spec(n)] * 2) for n in range(50)))
    assert sorted(index for indexes in told for index in indexes) == list(range(100))
    async with worker():
        await batch.close()
        found = await values(batch)
    assert all(found[index] == n * n for n, indexes in enumerate(told) for index in indexes)


async def test_a_loop_over_the_results_adds_more(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add([echo.spec(4)])
        seen: list[int] = []
        async for result in batch.as_completed(close_when_idle=True):
            seen.append(result.unwrap())
            if seen[-1]:
                await batch.add([echo.spec(seen[-1] - 1)] * 2)
        assert sorted(seen, reverse=True) == [4] + [3] * 2 + [2] * 4 + [1] * 8 + [0] * 16
        assert (await batch.status()).complete


async def test_a_loop_that_closes_when_idle_waits_for_what_runs(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add([square.spec(2), wait_for_file.spec(door)])
        seen = []
        async for result in batch.as_completed(close_when_idle=True):
            seen.append(result.index)
            door.touch()
        assert seen == [0, 1]


async def test_a_loop_over_nothing_ends_when_idle(producer: Producer) -> None:
    batch = await producer.open_batch()
    assert [result async for result in batch.as_completed(close_when_idle=True)] == []
    assert (await batch.status()).complete


async def test_results_that_were_not_taken_keep_the_batch_open(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add(square.map(range(2)))
        await batch.wait(among=range(2))
        await batch._close("0-0")
        assert not (await batch.status()).closed


# ---- each once


async def test_a_job_is_known_by_its_key(producer: Producer, worker: StartWorker, redis_url: str) -> None:
    batch = await producer.open_batch(batch_id="b")
    jobs = [echo.spec(name, key=name) for name in ("a", "b", "a")]
    assert await batch.add(jobs, unique=True) == [0, 1, 0]
    assert await batch.add([echo.spec("c", key="c"), echo.spec("b", key="b")], unique=True) == [2, 1]
    async with Producer(redis_url, settings=Settings()) as other:
        again = await other.open_batch(batch_id="b")
        assert await again.add(jobs, unique=True) == [0, 1, 0]
    async with worker():
        await batch.close()
        assert await values(batch) == ["a", "b", "c"]
    assert await batch.add(jobs, unique=True) == [0, 1, 0], "all were added before: no error"
    with pytest.raises(BatchClosedError):
        await batch.add([*jobs, echo.spec("d", key="d")], unique=True)


async def test_the_same_key_is_no_name_without_being_asked_for(producer: Producer) -> None:
    batch = await producer.open_batch()
    assert await batch.add([echo.spec("a", key="a")] * 2) == [0, 1]
    assert await batch.add([echo.spec("a", key="a")], unique=True) == [2]


async def test_nothing_of_an_open_batch_outlives_it(producer: Producer, worker: StartWorker, redis: Any) -> None:
    async with worker():
        batch = await producer.open_batch(keep_results=1)
        await batch.add([echo.spec("a", key="a")], unique=True)
        await batch.add([echo.spec("b")])
        assert 0 < redis.ttl(keys.names(batch.id)) <= keys.OPEN_BATCH_LIFETIME
        await batch.close()
        assert await values(batch) == ["a", "b"]
        await until(lambda: not redis.keys(f"*{batch.id}*"))


# ---- close


async def test_a_batch_without_jobs_is_complete_when_it_is_closed(producer: Producer) -> None:
    batch = await producer.open_batch()
    await batch.close()
    assert await batch.results() == []


async def test_a_batch_that_closes_when_idle_waits_for_its_first_job(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.close(when_idle=True)
        assert not (await batch.status()).closed
        await batch.add(square.map(range(3)))
        assert await values(batch) == [0, 1, 4]


async def test_a_batch_whose_jobs_are_done_closes_at_once_when_idle(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add([square.spec(3)])
        await batch.wait(among=[0])
        await batch.close(when_idle=True)
        assert (await batch.status()).complete


async def test_a_batch_that_is_gone_is_lost(producer: Producer, redis: Any) -> None:
    batch = await producer.open_batch()
    redis.delete(keys.batch(batch.id))
    with pytest.raises(BatchLostError):
        await batch.add([square.spec(1)])
    with pytest.raises(BatchLostError):
        await batch.close()


# ---- what cannot be


async def test_a_submitted_batch_is_not_added_to_nor_an_open_one_submitted(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="whole")
    with pytest.raises(BatchClosedError, match="only open_batch makes one that is added to"):
        await batch.add([square.spec(1)])
    await producer.open_batch(batch_id="open")
    for jobs in (square.map(range(3)), square.map([])):
        with pytest.raises(OptionError, match="batch_id 'open' cannot be: that is an open batch"):
            await producer.submit(jobs, batch_id="open")
    assert not (await (await producer.attach("open")).status()).closed


async def test_past_its_deadline_a_batch_takes_no_more(producer: Producer) -> None:
    batch = await producer.open_batch(deadline=0.05)
    await asyncio.sleep(0.1)
    with pytest.raises(BatchClosedError):
        await batch.add([square.spec(1)])


@pytest.mark.parametrize(
    ("jobs", "unique", "kind", "message"),
    [
        ([square.spec(1), 3], False, UsageError, "job 1 is 3, not a JobSpec"),
        ([square.spec(1), square.spec("x")], False, ArgumentsError, "job 1: "),
        ([echo.spec("x" * 2_000_000)], False, PayloadTooLargeError, "job 0: "),
        ([square.spec(1)], True, OptionError, "job 0, of 'square', has no key, and with unique=True"),
    ],
)
async def test_a_bad_job_is_named_and_none_is_added(
    producer: Producer, jobs: list[Any], unique: bool, kind: type[Exception], message: str
) -> None:
    batch = await producer.open_batch()
    with pytest.raises(kind, match=f"^{message}"):
        await batch.add(jobs, unique=unique)
    assert (await batch.status()).total == 0


@pytest.mark.parametrize("key", [keys.names, keys.chunks])
async def test_a_key_that_is_not_ours_is_said(producer: Producer, redis: Any, key: Any) -> None:
    batch = await producer.open_batch(batch_id="b")
    redis.set(key("b"), "mine", ex=60)
    with pytest.raises(ProtocolError, match="straggler:batch:b"):
        await batch.add([square.spec(1)])
    assert (await batch.status()).total == 0


async def test_a_header_that_is_not_ours_is_named(producer: Producer, redis: Any) -> None:
    batch = await producer.open_batch(batch_id="b")
    redis.hset(keys.batch("b"), "total", "many")
    with pytest.raises(ProtocolError, match="straggler:batch:b"):
        await batch.add([square.spec(1)])
