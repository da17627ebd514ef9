"""Collecting: each result once, as it is recorded, by whoever asks, for as long as they like to wait."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from producer import watch
from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.batches import BatchOptions
from protocol.errors import (
    BatchLostError,
    BatchNotFoundError,
    OptionError,
    ProtocolError,
)
from protocol.settings import Settings
from tests.conftest import StartWorker, until
from tests.jobs import fail, hang, square, wait_for_file


async def collected(batch: Batch[Any], count: int | None = None, timeout: float | None = 10) -> list[int]:
    """Take results from `as_completed`, at most `count`, and tell their indexes."""
    indexes: list[int] = []
    async for result in batch.as_completed(timeout):
        indexes.append(result.index)
        if len(indexes) == count:
            break
    return indexes


# ---- as_completed


async def test_results_come_in_the_order_of_completion(producer: Producer, worker: StartWorker, tmp_path: Path) -> None:
    doors = [tmp_path / name for name in "abc"]
    async with worker():
        batch = await producer.submit(wait_for_file.map(doors))
        for count, opened in enumerate((1, 2, 0), start=1):
            doors[opened].touch()
            while (await batch.status()).done < count:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.005)
        assert await collected(batch) == [1, 2, 0]


async def test_a_result_comes_while_others_still_run(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door), square.spec(3)])
        seen = []
        async for result in batch.as_completed():
            seen.append(result.index)
            door.touch()
        assert seen == [1, 0]


async def test_two_collectors_both_get_all(producer: Producer, redis_url: str, worker: StartWorker) -> None:
    async with Producer(redis_url, settings=Settings()) as other:
        batch = await producer.submit(square.map(range(2000)))
        second, third = await other.attach(batch.id), await other.attach(batch.id)
        async with worker():
            found = await asyncio.gather(collected(batch), collected(second), collected(third))
    for indexes in found:
        assert sorted(indexes) == list(range(2000))


async def test_a_collector_goes_on_from_a_cursor_in_the_middle_of_a_group(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(1000)))
        await batch.wait()
    assert redis.xlen(keys.results(batch.id)) < 500, "results are grouped"
    seen: list[int] = []
    cursor = "0-0"
    while len(seen) < 1000:  # a new process each time, each gone after 7 results
        attached = await producer.attach(batch.id, cursor=cursor)
        seen += await collected(attached, 7)
        cursor = attached.cursor
    assert sorted(seen) == list(range(1000)), "each once"
    assert await collected(await producer.attach(batch.id, cursor=cursor)) == []


async def test_a_second_loop_goes_on_where_the_first_was_left(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(100)))
        first = await collected(batch, 30)
        assert sorted(first + await collected(batch)) == list(range(100))
        assert await collected(batch) == []


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "1-2+x", "1-2-3", "1-2+-3", "٣-0", "²-0"])
async def test_a_cursor_that_cannot_be_is_refused(producer: Producer, cursor: str) -> None:
    await producer.submit([], batch_id="b")
    with pytest.raises(OptionError, match=r"cursor .* cannot be"):
        await producer.attach("b", cursor=cursor)


async def test_a_cursor_behind_the_end_ends_the_loop(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(3)))
        await batch.wait()
    assert await collected(await producer.attach(batch.id, cursor="99999999999999-0")) == []


async def test_a_timeout_of_the_collector_leaves_the_batch_usable(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(2), wait_for_file.spec(door)])
        assert await collected(batch, 1) == [0]
        with pytest.raises(TimeoutError):
            await collected(batch, timeout=0.1)
        door.touch()
        assert await collected(batch) == [1]


async def test_a_cancelled_collector_leaves_the_connection_usable(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([wait_for_file.spec(door)])
        for _ in range(5):
            collecting = asyncio.create_task(collected(batch))
            await asyncio.sleep(0.01)
            collecting.cancel()
            await asyncio.wait({collecting})
        door.touch()
        assert await collected(batch) == [0]


@pytest.mark.redis
async def test_a_waiting_collector_sends_nothing(producer: Producer, redis: Any) -> None:
    batch = await producer.submit([hang.spec()])
    waiting = asyncio.create_task(batch.wait(timeout=1))
    await asyncio.sleep(0.1)
    redis.config_resetstat()
    await asyncio.sleep(0.5)
    sent = {name for name in redis.info("commandstats") if not name.startswith(("cmdstat_config", "cmdstat_info"))}
    assert sent == set()
    await waiting


# ---- status, attach, and batches that are gone


async def test_status_counts_jobs_by_where_they_are(producer: Producer, worker: StartWorker, door: Path) -> None:
    jobs = [square.spec(1), fail.spec("no"), hang.spec(timeout=0.1), wait_for_file.spec(door), wait_for_file.spec(door)]
    batch: Batch[Any] = await producer.submit(jobs, name="for people", metadata={"a": 1})
    status = await batch.status()
    assert (status.total, status.queued, status.running, status.done, status.complete) == (5, 5, 0, 0, False)
    assert (status.name, status.metadata, status.closed) == ("for people", {"a": 1}, True)
    async with worker():
        async for result in batch.as_completed():
            if result.is_timeout:
                break
        status = await batch.status()
        assert (status.queued, status.running, status.success, status.failure, status.timeout) == (0, 2, 1, 1, 1)
        door.touch()
        await batch.wait()
    status = await batch.status()
    assert (status.queued, status.running, status.success, status.done, status.complete) == (0, 0, 3, 5, True)
    assert status.finished_at is not None
    assert status.finished_at >= status.created_at
    assert [found.batch_id for found in await producer.batches()] == [batch.id]


async def test_what_is_not_there_is_not_found(producer: Producer) -> None:
    with pytest.raises(BatchNotFoundError, match="no batch 'nowhere' in this Redis"):
        await producer.attach("nowhere")
    assert await producer.batches() == []


async def test_a_batch_that_vanishes_under_a_waiting_collector_is_an_error_not_a_hang(
    producer: Producer, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_BLOCK", 0.1)
    batch = await producer.submit([hang.spec()])
    waiting = asyncio.create_task(batch.results())
    await asyncio.sleep(0.05)
    redis.flushall()
    with pytest.raises(BatchLostError, match=f"batch '{batch.id}' was in this Redis and is gone: Redis has restarted"):
        await waiting
    for lost in (batch.status(), batch.wait(), batch.gather(), batch.wait(timeout=0), batch.workers()):
        with pytest.raises(BatchLostError):
            await lost
    with pytest.raises(BatchLostError):
        await collected(batch)


async def test_a_batch_that_was_never_there_is_not_lost(producer: Producer) -> None:
    batch: Batch[Any] = Batch(producer.scripts, "b", "default", BatchOptions(), is_there=False)
    with pytest.raises(BatchNotFoundError, match="no batch 'b'") as raised:
        await batch.status()
    assert not isinstance(raised.value, BatchLostError)
    await producer.submit([square.spec(1)], batch_id="b")
    assert (await batch.status()).total == 1
    await producer.redis.delete(keys.batch("b"))
    with pytest.raises(BatchLostError):
        await batch.status()


async def test_bytes_that_are_no_results_are_said_so(producer: Producer, redis: Any) -> None:
    batch = await producer.submit([hang.spec()])
    redis.xadd(keys.results(batch.id), {"common": "{}", "rows": "?"})
    redis.pexpire(keys.results(batch.id), 10_000)
    with pytest.raises(ProtocolError, match=f"straggler:batch:{batch.id}:results"):
        await batch.results()


@pytest.mark.parametrize(("field", "value"), [("options", "?"), ("total", "many"), ("options", "[]")])
async def test_a_header_that_is_not_ours_is_said_so(producer: Producer, redis: Any, field: str, value: str) -> None:
    batch = await producer.submit([hang.spec()])
    redis.hset(keys.batch(batch.id), field, value)
    with pytest.raises(ProtocolError, match=f"straggler:batch:{batch.id}'"):
        await batch.status()
    if field == "options":
        with pytest.raises(ProtocolError, match=f"straggler:batch:{batch.id}'"):
            await producer.attach(batch.id)


async def test_all_keys_of_a_batch_are_gone_once_its_results_are_no_longer_kept(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([square.spec(1), fail.spec("no")], keep_results=1)
        assert len(await batch.results()) == 2
        await until(lambda: not redis.keys(f"*{batch.id}*"))
    with pytest.raises(BatchNotFoundError):
        await producer.attach(batch.id)
