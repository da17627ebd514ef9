"""Metrics of a real worker's processes, read as Prometheus reads them, also when a process dies."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from producer.overview.metrics import CONTENT_TYPE, exposition
from producer.producer import Producer
from straggler import Batch, JobSpec
from tests.conftest import PATIENCE, StartProcess, WorkerProcess
from tests.jobs import echo, fail, hang, square, wait_for_file
from tests.metrics import parse, value
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

WORKER = ["straggler", "worker", "--metrics-port", "0"]


def address(worker: WorkerProcess) -> str:
    found = re.search(r"metrics are served at (http://127\.0\.0\.1:\d+/metrics)", worker.output)
    assert found, worker.output
    return found[1]


def scrape(worker: WorkerProcess) -> dict[str, Metric]:
    with urllib.request.urlopen(address(worker), timeout=10) as answer:  # noqa: S310  # our own worker
        assert answer.headers["Content-Type"].startswith("text/plain")
        return parse(answer.read().decode())


async def scraped(worker: WorkerProcess, name: str, expected: float, **labels: str) -> dict[str, Metric]:
    """Wait until a metric is what it should be; returns all of them then."""
    async with asyncio.timeout(PATIENCE):
        while value(found := await asyncio.to_thread(scrape, worker), name, **labels) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


def processes_of(worker: WorkerProcess) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]


async def start(worker_process: StartProcess, *words: str, **settings: Any) -> WorkerProcess:
    settings = {"jobs": "tests.jobs,tests.rough_jobs", "concurrency": 20, **settings}
    return await asyncio.to_thread(worker_process, command=[*WORKER, *words], **settings)


async def test_processes_add_up_and_tell_every_kind_of_result(producer: Producer, worker_process: StartProcess) -> None:
    worker = await start(worker_process, "--processes", "2")
    await scraped(worker, "straggler_worker_processes", 2)
    jobs = [*square.map(range(500)), *fail.map(["x"] * 3), *hang.map([]), hang.spec(timeout=0.2)]
    jobs += [echo.spec(number, key=f"key {number}") for number in range(100)]
    await (await producer.submit(jobs)).results()

    found = await scraped(worker, "straggler_jobs_total", 604)

    assert value(found, "straggler_jobs_total", function="square", result="success") == 500
    assert value(found, "straggler_jobs_total", function="echo", result="success") == 100
    assert value(found, "straggler_jobs_total", function="fail", result="failure") == 3
    assert value(found, "straggler_jobs_total", function="hang", result="timeout") == 1
    assert value(found, "straggler_job_run_seconds_count") == 604
    assert value(found, "straggler_job_wait_seconds_count", function="square") == 500
    assert 0.2 <= value(found, "straggler_job_run_seconds_sum", function="hang") < 5
    assert value(found, "straggler_worker_slots") == 40
    assert value(found, "straggler_worker_memory_bytes") > 2 * (10 << 20)
    await scraped(worker, "straggler_worker_slots_in_use", 0)
    told = parse((await exposition(producer)).decode())
    assert CONTENT_TYPE.startswith("text/plain")
    assert value(told, "straggler_queue_workers", queue="default") == 2
    assert value(told, "straggler_queue_slots", queue="default") == 40
    assert value(told, "straggler_batches_open") == 0


async def test_no_counter_goes_down_when_a_process_is_killed(producer: Producer, worker_process: StartProcess) -> None:
    worker = await start(worker_process, lease=2)
    await (await producer.submit(square.map(range(50)))).results()
    before = await scraped(worker, "straggler_jobs_total", 50)
    [pid] = processes_of(worker)
    os.kill(pid, signal.SIGKILL)
    await scraped(worker, "straggler_worker_deaths_total", 1, cause="died")
    after = await scraped(worker, "straggler_worker_processes", 1)
    for name, family in before.items():
        if family.type == "counter":
            assert value(after, f"{name}_total") >= value(before, f"{name}_total")
    await (await producer.submit(square.map(range(7)))).results()
    await scraped(worker, "straggler_jobs_total", 57)


async def test_job_for_which_a_process_was_killed_is_counted_and_what_ended_right_before(
    producer: Producer, worker_process: StartProcess
) -> None:
    worker = await start(worker_process, kill_floor=0.3)
    told = await asyncio.to_thread(scrape, worker)
    assert value(told, "straggler_jobs_total", function="square") == 0, "a job is told of before it has run"
    await (await producer.submit(square.map(range(50)))).results()
    batch: Batch[Any] = await producer.submit([JobSpec(function="hold_in_c", args=())], timeout=0.5)
    [result] = await batch.results()
    assert (result.status, getattr(result, "stopped", "")) == ("timeout", "killed")
    found = await scraped(worker, "straggler_jobs_total", 1, function="hold_in_c", result="timeout")
    assert value(found, "straggler_worker_deaths_total", cause="killed") == 1
    assert value(found, "straggler_jobs_total", function="square", result="success") == 50


async def test_leases_and_what_is_in_progress_are_told(
    producer: Producer, worker_process: StartProcess, door: Path
) -> None:
    worker = await start(worker_process, lease=1)
    batch = await producer.submit(wait_for_file.map([door] * 5))
    await scraped(worker, "straggler_worker_slots_in_use", 5)
    told = parse((await exposition(producer)).decode())
    assert (value(told, "straggler_batches_open"), value(told, "straggler_jobs_queued")) == (1, 0)
    await scraped(worker, "straggler_worker_batches", 1)
    async with asyncio.timeout(PATIENCE):
        while renewals(found := await asyncio.to_thread(scrape, worker), "renewed") < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    door.touch()
    await batch.results()
    assert renewals(found, "lost") == 0


def renewals(found: dict[str, Metric], outcome: str) -> float:
    return value(found, "straggler_lease_renewals_total", outcome=outcome)


async def test_calls_that_were_made_again_are_counted(worker_process: StartProcess) -> None:
    server = RedisServer().start()
    try:
        worker = await start(worker_process, redis_url=server.url)
        await scraped(worker, "straggler_redis_retries_total", 0)
        server.kill()
        async with asyncio.timeout(PATIENCE):
            while not value(await asyncio.to_thread(scrape, worker), "straggler_redis_retries_total"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait) == 0
    finally:
        server.stop()
