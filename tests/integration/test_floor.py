"""Who only looks: batches by the page, workers and queues as they are, results by where they stand."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from producer.overview.floor import drain, list_queues, read_floor, read_queues_in_use
from producer.overview.listing import newest, read_statuses
from producer.overview.metrics import exposition
from producer.producer import Producer
from producer.records import START, read_entries, read_page
from protocol import keys
from protocol.errors import ProtocolError
from straggler.commands.top import look
from tests.conftest import PATIENCE, StartProcess, StartWorker, until, until_running
from tests.jobs import hang, square, wait_for_file
from tests.metrics import parse, value


async def test_batches_are_listed_by_the_page_newest_first(producer: Producer) -> None:
    for number in range(5):
        await producer.submit(square.map(range(number)), batch_id=f"b{number}")
    assert await newest(producer.redis, 1, 2) == ["b3", "b2"]
    found = await read_statuses(producer.redis, ["b3", "gone", "b2"])
    assert [(status.batch_id, status.total) for status in found] == [("b3", 3), ("b2", 2)]


async def test_no_batches_are_no_trip(producer: Producer) -> None:
    assert await read_statuses(producer.redis, []) == []


async def test_floor_tells_how_full_workers_are_and_what_waits(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=3) as one:
        await producer.submit([hang.spec() for _ in range(20)])
        await until(lambda: one.crew.slots.used == 3)
        await one.crew.leases.beat()
        [queue] = await read_floor(producer.redis, ["default"], producer.clock.now())
    [state] = queue.workers
    assert (state.queue, state.slots, state.abandoned) == ("default", 3, 0)
    assert state.running == 3
    assert (state.memory or 0) > 1 << 20
    assert abs(state.seen_at - time.time()) < 15
    assert queue.waiting > 0
    assert queue.later > 0
    assert queue.oldest_wait >= 0


async def test_floor_of_a_queue_that_nobody_knows_is_empty(producer: Producer) -> None:
    [queue] = await read_floor(producer.redis, ["nobody"], producer.clock.now())
    assert (queue.waiting, queue.later, queue.oldest_wait, queue.workers) == (0, 0, 0.0, [])


async def test_a_worker_that_talks_nonsense_is_there_all_the_same(producer: Producer, redis: Any) -> None:
    now = producer.clock.now()
    redis.zadd(keys.workers("default"), {"odd": now, "silent": now})
    redis.hset(keys.worker("odd"), mapping={"slots": "many", "running": "3", b"\xff": "?"})
    redis.set(keys.worker("silent"), "not a hash")
    for key in (keys.workers("default"), keys.worker("odd"), keys.worker("silent")):
        redis.expire(key, 60)
    [queue] = await read_floor(producer.redis, ["default"], now)
    assert {(state.worker_id, state.slots, state.running) for state in queue.workers} == {
        ("odd", None, 3), ("silent", None, None),
    }  # fmt: skip


async def test_queue_where_jobs_wait_for_workers_is_seen_however_old_its_batch_is(
    producer: Producer, redis_url: str, redis: Any
) -> None:
    async with Producer(redis_url, queue="lonely") as other:
        await other.submit([square.spec(1)])
    for _ in range(5):
        await (await producer.submit(square.map(range(2)))).cancel()
    redis.zremrangebyrank(keys.BATCHES, 0, 0)  # as 10,000 newer ones do
    [_, lonely] = await read_queues_in_use(producer.redis, {"default"}, producer.clock.now() + 100)
    assert (lonely.name, lonely.workers, lonely.waiting) == ("lonely", [], 1)
    assert lonely.oldest_wait >= 100
    assert [queue.name for queue in (await look(producer, 1)).queues] == ["default", "lonely"]
    told = parse((await exposition(producer)).decode())
    assert value(told, "straggler_queue_workers", queue="lonely") == 0
    assert value(told, "straggler_queue_chunks", queue="lonely") == 1
    redis.delete(keys.queue("lonely"))
    assert "lonely" not in (await exposition(producer)).decode(), (
        "one that nobody uses any more is not told of for ever"
    )


async def test_queue_of_an_idle_worker_is_listed_and_again_when_redis_has_lost_it(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker(queue="idle") as one:
        await until(lambda: redis.zcard(keys.QUEUES))
        assert await list_queues(producer.redis) == {"idle"}
        seen = redis.zscore(keys.QUEUES, "idle")
        await one.crew.leases.beat()
        assert redis.zscore(keys.QUEUES, "idle") == seen, "once an hour"
        redis.flushall()
        await one.crew.leases.beat()
        assert await list_queues(producer.redis) == {"idle"}
        redis.zadd(keys.QUEUES, {"idle": time.time() - 3700})
        await one.crew.leases.beat()
        assert redis.zscore(keys.QUEUES, "idle") == pytest.approx(time.time(), abs=60)


async def test_list_of_queues_is_bounded_in_number_and_age(producer: Producer, redis: Any) -> None:
    now = time.time()
    redis.zadd(keys.QUEUES, {f"q{number}": now - number for number in range(1200)})
    redis.zadd(keys.QUEUES, {"old": now - keys.OPEN_BATCH_LIFETIME - 1})
    await producer.submit(square.map([1]))
    found = await list_queues(producer.redis)
    assert len(found) == 1000
    assert {"default", "q0", "q998"} <= found
    assert "old" not in found
    assert 0 < redis.ttl(keys.QUEUES) <= keys.OPEN_BATCH_LIFETIME
    redis.zremrangebyrank(keys.QUEUES, 0, -3)
    redis.zadd(keys.QUEUES, {"old": now - keys.OPEN_BATCH_LIFETIME - 1, "default": now - 3700})
    await producer.submit(square.map([1]))
    assert await list_queues(producer.redis) == {"default", "q0"}


async def test_value_in_place_of_the_list_of_queues_is_named_and_makes_way(producer: Producer, redis: Any) -> None:
    redis.set(keys.QUEUES, "nonsense", ex=60)
    with pytest.raises(ProtocolError, match=keys.QUEUES):
        await list_queues(producer.redis)
    await producer.submit(square.map([1]))
    assert await list_queues(producer.redis) == {"default"}


async def test_floor_names_a_key_that_is_not_ours(producer: Producer, redis: Any) -> None:
    redis.set(keys.queue("default"), "nonsense", ex=60)
    with pytest.raises(ProtocolError, match=keys.queue("default")):
        await read_floor(producer.redis, ["default"], 0)


async def test_results_are_read_by_the_page_and_again_by_where_they_stand(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(600)))
        await batch.wait()
    after, records, is_last = START, [], False
    while not is_last:
        page = await read_page(producer.redis, batch.id, after, 2)
        records += page.records
        after, is_last = records[-1].entry, page.is_last
    told = [successes.columns.indexes for record in records for successes in record.facts.successes]
    assert sorted(index for indexes in told for index in indexes) == list(range(600))
    found = await read_entries(producer.redis, batch.id, [records[0].entry, "1-1"])
    assert [result.index for result in found.pop(records[0].entry)] == told[0]
    assert not found


async def test_page_of_a_batch_without_results_is_empty(producer: Producer) -> None:
    assert await read_page(producer.redis, "none", START, 10) == ([], False)


async def test_records_name_a_stream_that_is_not_ours(producer: Producer, redis: Any) -> None:
    redis.set(keys.results("b"), "nonsense", ex=60)
    with pytest.raises(ProtocolError, match=keys.results("b")):
        await read_page(producer.redis, "b", START, 10)
    with pytest.raises(ProtocolError, match=keys.results("b")):
        await read_entries(producer.redis, "b", ["1-1"])


# ---- draining


async def test_a_worker_that_is_told_to_drain_ends_its_jobs_and_leaves(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    async with worker(concurrency=1, lease=1.0, shutdown_wait=20.0) as one:
        batch = await producer.submit([wait_for_file.spec(door), *square.map(range(3))])
        await until_running(batch, 1)
        assert await drain(producer.redis, one.crew.worker_id, producer.clock.now())
        await until(lambda: one.drained)
        [queue] = await read_floor(producer.redis, ["default"], producer.clock.now())
        assert [state.draining for state in queue.workers] == [True]
        door.touch()
        await until(lambda: redis.zcard(keys.workers("default")) == 0)
        assert not redis.exists(keys.drain(one.crew.worker_id))
        status = await batch.status()
        assert (status.success, status.queued) == (1, 3)
    async with worker():
        assert {result.attempt for result in await batch.results()} == {1}


async def test_a_worker_that_is_not_there_cannot_be_drained(producer: Producer, redis: Any) -> None:
    assert not await drain(producer.redis, "nobody", 0.0)
    assert redis.keys("*drain*") == []


@pytest.mark.redis
async def test_nobody_takes_a_drained_workers_place_and_its_supervisor_leaves_with_the_last(
    producer: Producer, worker_process: StartProcess
) -> None:
    words = ["straggler", "worker", "--processes", "2"]
    process = worker_process(command=words, lease=1)
    async with asyncio.timeout(PATIENCE):
        while len(workers := await producer.workers()) < 2:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.05)
    first, second = workers
    await drain(producer.redis, first, producer.clock.now())
    async with asyncio.timeout(PATIENCE):
        while await producer.workers() != [second]:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.05)
    assert await (await producer.submit(square.map(range(9)))).gather()
    await drain(producer.redis, second, producer.clock.now())
    assert await asyncio.to_thread(process.wait) == 0
    assert process.output.count("takes jobs from") == 2
