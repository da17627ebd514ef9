"""Redis as people have it: a user with keys and no channels, as Redis 7 makes them by default; one that evicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from producer.producer import Producer
from tests.conftest import PATIENCE, StartWorker, until, until_running
from tests.jobs import fail, hang, nap, square
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def limited_url(redis_url: str, redis: Any) -> Iterator[str]:
    rules = ("on", ">secret", "~straggler:*", "~arq:*", "resetchannels", "+@all", "-@dangerous", "+info")
    redis.execute_command("ACL", "SETUSER", "limited", *rules)
    yield redis_url.replace("unix://", "unix://limited:secret@")
    redis.execute_command("ACL", "DELUSER", "limited")


@pytest.fixture
async def limited(limited_url: str) -> AsyncIterator[Producer]:
    async with Producer(limited_url) as producer:
        yield producer


async def test_what_runs_is_cancelled_seconds_later(
    limited: Producer, limited_url: str, worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(limited_url, lease=1.0):
        batch = await limited.submit([hang.spec(), hang.spec()])
        await until_running(batch, 2)
        await batch.cancel([0])
        await batch.cancel()
        results = await asyncio.wait_for(batch.results(), 10)
        assert [result.status for result in results] == ["cancelled", "cancelled"]
        await until(lambda: caplog.text.count("hints of decisions cannot be heard"))
        await asyncio.sleep(0.3)
    assert caplog.text.count("hints of decisions cannot be heard") == 1
    assert "decisions cannot be read" not in caplog.text


async def test_a_batch_that_is_past_its_tolerance_ends(
    limited: Producer, limited_url: str, worker: StartWorker
) -> None:
    async with worker(limited_url, concurrency=1):
        batch = await limited.submit([fail.spec("no"), *nap.map([0.2] * 5)], max_failures=0)
        await asyncio.wait_for(batch.results(), PATIENCE)
        status = await batch.status()
        assert (status.total, status.failure) == (6, 1)
        assert status.cancelled >= 1, "what ran may finish"


async def test_a_deleted_batch_leaves_nothing(limited: Producer, redis: Any) -> None:
    batch = await limited.submit(square.map(range(600)))
    await batch.delete()
    assert not [key for key in redis.scan_iter(count=1000) if batch.id.encode() in key]


@pytest.mark.parametrize(("limit", "is_said"), [("50mb", True), ("0", False)])
async def test_a_worker_warns_of_a_redis_that_evicts(
    worker: StartWorker, caplog: pytest.LogCaptureFixture, limit: str, is_said: bool
) -> None:
    server = RedisServer("--maxmemory", limit, "--maxmemory-policy", "volatile-lru").start()
    try:
        async with worker(server.url), Producer(server.url) as producer:
            batch = await producer.submit(square.map([2]))
            assert await batch.gather() == [4]
    finally:
        server.stop()
    assert ("maxmemory-policy volatile-lru" in caplog.text) is is_said
