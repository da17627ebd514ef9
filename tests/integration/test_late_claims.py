"""A claim whose reply is heard only once its leases are over: what it has brought is others' to run, each job once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol import lua
from straggler import current_job, job
from tests.conftest import StartProcess, StartWorker, until
from tests.redis_server import RedisServer
from tests.tap import Tap

pytestmark = pytest.mark.redis

COUNT = 5
LEASE = 1.0


@pytest.fixture
def redis_url(server: RedisServer) -> str:
    """Let producers and workers of a test work with its own server."""
    return server.url


@job
async def sign(trace: Path) -> int:
    """Leave a trace of each run."""
    with trace.open("a") as file:
        file.write(f"{current_job().job_id}\n")
    return current_job().attempt


async def test_what_is_heard_of_too_late_runs_elsewhere_once(
    producer: Producer,
    worker: StartWorker,
    worker_process: StartProcess,
    server: RedisServer,
    redis: Any,
    tmp_path: Path,
) -> None:
    trace = tmp_path / "trace"
    redis.script_load(lua.source("claim"))  # else what is held is the reply that Redis does not know it
    batch = await producer.submit(sign.map([trace] * COUNT), batch_id="b")
    async with Tap(server.socket, "claim", "", before=False) as tap:
        # In a thread: the tap carries its bytes on this loop.
        options = {"redis_url": tap.url, "lease": LEASE}
        late = await asyncio.to_thread(worker_process, "tests.integration.test_late_claims", **options)
        await tap.is_there.wait()
        [holder] = {redis.get(key) for key in redis.keys("arq:in-progress:*")}
        assert holder in redis.zrange("straggler:workers:default", 0, -1)
        async with worker(lease=LEASE):
            results = await batch.results()
        tap.open()
        await tap.passed.wait()
        later = await producer.submit(sign.map([trace] * COUNT), batch_id="later")
        results += await later.results()
        assert {result.worker for result in results[COUNT:]} == {holder.decode()}, "it lives, and goes on"
        assert late.process.poll() is None
    assert [(result.status, result.value_or(None), result.attempt) for result in results] == [
        ("success", 1, 1)
    ] * 2 * COUNT
    assert Counter(trace.read_text().split()) == {f"{name}:{n}": 1 for name in ("b", "later") for n in range(COUNT)}
    assert "Traceback" not in late.output
    await until(lambda: not redis.keys("arq:*"))
