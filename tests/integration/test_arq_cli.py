"""arq's own command line runs our chunks: `arq workers.settings.WorkerSettings`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from straggler import FailureResult, TimeoutResult
from tests.conftest import ROOT, StartProcess, until, until_running
from tests.jobs import append_line, fail, hang, square, wait_for_file

pytestmark = pytest.mark.redis

ARQ = [str(Path(sys.executable).with_name("arq")), "workers.settings.WorkerSettings"]
READY = "Starting worker"


def arq(start: StartProcess, *options: str, **settings: Any) -> Any:
    return start("tests.jobs", command=[*ARQ, *options], ready=READY, **settings)


def trace_of(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def test_arqs_worker_runs_a_batch_to_its_end(
    producer: Producer, redis: Any, worker_process: StartProcess
) -> None:
    arq(worker_process)
    jobs = [*(square.spec(n) for n in range(300)), hang.spec(timeout=0.2), fail.spec("no")]
    batch: Batch[Any] = await producer.submit(jobs)
    results = await batch.results()
    assert [result.value_or(None) for result in results[:300]] == [n * n for n in range(300)]
    timeout, failure = results[300:]
    assert isinstance(timeout, TimeoutResult)
    assert (timeout.phase, timeout.stopped, timeout.limit) == ("running", "cancelled", 0.2)
    assert isinstance(failure, FailureResult)
    assert failure.message == "no"
    status = await batch.status()
    assert (status.success, status.timeout, status.failure, status.queued, status.running) == (300, 1, 1, 0, 0)
    await until(lambda: not redis.keys("arq:job:*"))
    assert not redis.keys("arq:result:*"), "arq keeps no results of its own"


async def test_arqs_worker_hands_back_at_sigterm(producer: Producer, worker_process: StartProcess, door: Path) -> None:
    first = arq(worker_process, shutdown_wait=0.2)
    batch = await producer.submit([wait_for_file.spec(door) for _ in range(3)])
    await until_running(batch, 3)
    first.terminate()
    await asyncio.to_thread(first.wait)
    arq(worker_process)
    door.touch()
    results = await batch.results()
    assert {result.status for result in results} == {"success"}
    assert {result.worker for result in results} != {None}


async def test_a_killed_worker_of_arqs_costs_no_more_than_its_lease(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    first = arq(worker_process, lease=1)
    batch = await producer.submit(append_line.starmap([(trace, "a", 1.0)]))
    await until(lambda: trace_of(trace))
    first.kill()
    arq(worker_process, lease=1)
    [result] = await batch.results()  # what arq itself would wait for is longer than any test may take: 310 s
    assert (result.status, result.attempt) == ("success", 1)


async def test_our_worker_and_arqs_share_a_queue(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    arq(worker_process, concurrency=5)
    worker_process(concurrency=5)
    batch = await producer.submit(append_line.starmap((tmp_path / "trace", str(n), 0.01) for n in range(600)))
    assert len(await batch.gather()) == 600
    assert sorted(int(line) for _, _, line in trace_of(tmp_path / "trace")) == list(range(600))


async def test_arqs_burst_mode_leaves_once_the_queue_is_empty(
    producer: Producer, redis: Any, worker_process: StartProcess
) -> None:
    batch = await producer.submit(square.map(range(500)))
    worker = arq(worker_process, "--burst")
    assert await asyncio.to_thread(worker.wait) == 0
    assert (await batch.status()).success == 500
    assert not redis.keys("straggler:worker:*")


def check(url: str) -> int:
    environment = {**os.environ, "STRAGGLER_REDIS_URL": url, "STRAGGLER_JOBS": "tests.jobs"}
    return subprocess.run([*ARQ, "--check"], cwd=ROOT, env=environment, capture_output=True, check=False).returncode


async def test_arqs_check_tells_whether_a_worker_lives(
    redis_url: str, redis: Any, worker_process: StartProcess
) -> None:
    assert await asyncio.to_thread(check, redis_url) == 1
    worker_process()
    await until(lambda: redis.keys("straggler:health:*"))
    assert await asyncio.to_thread(check, redis_url) == 0
