"""What a collector sees to while nothing comes: is anybody there to run the jobs, and is the batch still there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from producer import watch
from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchLostError
from protocol.settings import Settings
from tests.conftest import StartWorker, until
from tests.jobs import hang, square
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "producer")
    return caplog


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(watch, "FIRST_BLOCK", 0.02)
    monkeypatch.setattr(watch, "LONGEST_BLOCK", 0.05)


def events(log: pytest.LogCaptureFixture) -> list[str]:
    found = [record.event for record in log.records if hasattr(record, "event")]
    return [event for event in found if event != "batch.submitted"]


def _are_said(log: pytest.LogCaptureFixture, expected: list[str]) -> bool:
    return events(log) == expected


def say_alive(redis: Any, queue: str, count: int) -> None:
    """Let workers be alive, or none."""
    redis.delete(keys.workers(queue))
    for number in range(count):
        redis.zadd(keys.workers(queue), {f"worker-{number}": time.time()})
    redis.pexpire(keys.workers(queue), 15_000)


@pytest.mark.usefixtures("impatient")
async def test_each_change_of_whether_anybody_is_there_is_said_once(
    producer: Producer, redis: Any, log: pytest.LogCaptureFixture
) -> None:
    batch = await producer.submit([hang.spec(), hang.spec()])
    waiting = asyncio.create_task(batch.wait())
    for alive, expected in [
        (0, ["batch.no_workers"]),
        (3, ["batch.no_workers", "batch.workers"]),
        (0, ["batch.no_workers", "batch.workers", "batch.no_workers"]),
    ]:
        say_alive(redis, "default", alive)
        await until(partial(_are_said, log, expected))
        assert await batch.workers() == alive
        await asyncio.sleep(0.2)  # several more looks
        assert events(log) == expected
    waiting.cancel()
    await asyncio.wait({waiting})
    assert (
        f"no worker is alive on queue 'default': batch {batch.id} waits with 2 jobs open; "
        "start one with 'straggler worker --jobs MODULE --queue default'"
    ) in log.text
    assert f"3 workers are alive on queue 'default' again: batch {batch.id} goes on" in log.text


@pytest.mark.usefixtures("impatient")
async def test_workers_are_those_of_the_batchs_own_queue(
    redis_url: str, producer: Producer, redis: Any, log: pytest.LogCaptureFixture
) -> None:
    async with Producer(redis_url, queue="other", settings=Settings()) as elsewhere:
        batch_id = (await elsewhere.submit([hang.spec()])).id
    say_alive(redis, "default", 1)
    attached = await producer.attach(batch_id)
    assert attached.queue == "other"
    for batch in (attached, await producer.submit([hang.spec()], batch_id=batch_id)):
        log.clear()
        await batch.wait(timeout=0.5)
        assert events(log) == ["batch.no_workers"]
    assert "on queue 'other'" in log.text


@pytest.mark.usefixtures("impatient")
async def test_collector_of_a_batch_that_is_worked_on_says_nothing(
    producer: Producer, worker: StartWorker, log: pytest.LogCaptureFixture
) -> None:
    async with worker():
        batch: Batch[Any] = await producer.submit([square.spec(1), hang.spec()])
        await batch.wait(timeout=0.5)
        assert await batch.workers() == 1
    assert events(log) == []


async def looks(redis: Any, batch: Batch[Any]) -> int:
    """Begin to collect; count the looks at the batch before Redis is asked for results."""
    redis.config_resetstat()
    collecting = asyncio.create_task(batch.results())
    await until(lambda: redis.info("clients")["blocked_clients"])
    stats: Any = redis.info("commandstats")
    collecting.cancel()
    await asyncio.wait({collecting})
    await until(lambda: not redis.info("clients")["blocked_clients"])
    return int(stats.get("cmdstat_hgetall", {"calls": 0})["calls"])


@pytest.mark.redis
async def test_who_has_just_submitted_a_batch_knows_all_that_a_look_would_tell(producer: Producer, redis: Any) -> None:
    batch = await producer.submit([hang.spec()])
    assert await looks(redis, batch) == 0
    assert await looks(redis, batch) == 1


async def _cancel_one(batch: Batch[Any]) -> None:
    await batch.cancel([0])


async def _extend(batch: Batch[Any]) -> None:
    await batch.extend(deadline=100)


@pytest.mark.redis
@pytest.mark.parametrize("decide", [_cancel_one, _extend])
async def test_batch_about_which_something_was_decided_is_looked_at_first(
    producer: Producer, redis: Any, decide: Callable[[Batch[Any]], Awaitable[None]]
) -> None:
    batch = await producer.submit([hang.spec(), hang.spec()])
    await decide(batch)
    assert await looks(redis, batch) == 1


@pytest.mark.redis
@pytest.mark.parametrize("options", [{"batch_id": "b"}, {"deadline": 100.0}])
async def test_batch_that_may_have_been_there_before_or_has_a_deadline_is_looked_at_first(
    producer: Producer, redis: Any, options: dict[str, Any]
) -> None:
    assert await looks(redis, await producer.submit([hang.spec()], **options)) == 1


@pytest.mark.redis
async def test_waiting_costs_one_small_trip_now_and_then(producer: Producer, redis: Any) -> None:
    batch = await producer.submit([hang.spec()])
    waiting = asyncio.create_task(batch.wait())
    await until(lambda: redis.info("clients")["blocked_clients"])
    redis.config_resetstat()
    await until(lambda: "cmdstat_hgetall" in redis.info("commandstats"))  # the look after the first second
    await asyncio.sleep(2.5)
    stats: Any = redis.info("commandstats")
    ours = {
        name: stat["calls"] for name, stat in stats.items() if not name.startswith(("cmdstat_config", "cmdstat_info"))
    }
    waiting.cancel()
    await asyncio.wait({waiting})
    assert ours == {"cmdstat_time": 1, "cmdstat_hgetall": 1, "cmdstat_zcount": 1, "cmdstat_xread": 1}


@pytest.mark.redis
async def test_after_an_empty_restart_of_redis_every_call_says_that_the_batch_is_lost() -> None:
    server = RedisServer().start()
    try:
        async with Producer(server.url, settings=Settings()) as producer:
            batch = await producer.submit(square.map(range(10)))
            other = await producer.attach(batch.id)
            waiting = asyncio.create_task(batch.results())
            with server.client() as client:
                await until(lambda: client.info("clients")["blocked_clients"])
            server.kill()
            server.start()
            began = time.monotonic()
            with pytest.raises(BatchLostError, match=f"'{batch.id}' was in this Redis and is gone"):
                await waiting
            assert time.monotonic() - began < 30
            for call in (batch.status(), batch.wait(), batch.gather(), other.results()):
                with pytest.raises(BatchLostError):
                    await call
            again = await producer.submit(square.map(range(10)), batch_id=batch.id)
            assert (await again.status()).total == 10
    finally:
        server.stop()
