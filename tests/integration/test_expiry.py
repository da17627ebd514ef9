"""A batch with a deadline closes on time, whatever became of its workers and its producer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producer import expiry
from producer.batch import Batch
from producer.expiry import Expiry
from producer.producer import Producer
from producer.status import parse_options, read_header
from protocol import keys
from protocol.connection import RedisClock, Scripts
from protocol.errors import BatchClosedError, BatchLostError, ProtocolError
from protocol.jobs import JobSpec
from protocol.results import Result, TimeoutResult
from protocol.settings import Settings
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.jobs import echo, hang, nap, square


def ends(results: list[Result[Any]]) -> Counter[str]:
    """Count how jobs ended; a time-out that is not the batch's is a failure of the test."""
    assert all(result.phase == "batch" for result in results if isinstance(result, TimeoutResult))
    return Counter(result.stopped if isinstance(result, TimeoutResult) else result.status for result in results)


def hold(redis: Any, chunk_id: str) -> None:
    """Lease a chunk, as a worker would that is never heard of again."""
    redis.set(keys.ARQ_IN_PROGRESS + chunk_id, "a-dead-worker", px=30_000)


async def expire(producer: Producer, batch_id: str, *, is_final: bool) -> None:
    batch = await producer.attach(batch_id)
    options = parse_options(batch_id, await read_header(producer.redis, batch_id))
    await Expiry(producer.scripts, await batch.status(), options, producer.clock).run(is_final=is_final)


# ---- on time


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
    assert abs(first.enqueued_at - began) < 0.5
    assert 1.0 <= first.finished_at - first.enqueued_at < 15, "the grace is for what has started"
    status = await batch.status()
    assert (status.complete, status.timeout, status.deadline) == (True, 602, pytest.approx(began + 1, abs=0.5))
    assert not redis.zcard(keys.queue("default"))
    assert not redis.keys("arq:*")


async def test_what_a_dead_worker_held_is_abandoned_after_the_grace(
    producer: Producer, worker_process: StartProcess
) -> None:
    worker = worker_process(concurrency=2)
    batch: Batch[Any] = await producer.submit(hang.spec() for _ in range(20))
    doomed: Batch[Any] = await producer.submit((hang.spec() for _ in range(20)), batch_id="doomed", deadline=2, grace=0.3)
    assert batch.id
    await until_running(batch, 2)
    worker.kill()
    assert (await doomed.wait(timeout=30)).pending == []
