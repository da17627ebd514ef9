"""A real worker's log: as JSON every line is an object that tells its event, its batch and its job."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from producer.producer import Producer
from tests.conftest import StartProcess, WorkerProcess
from tests.jobs import fail, square, stubborn

pytestmark = pytest.mark.redis


def events(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.output.splitlines()]


async def stop(worker: WorkerProcess) -> None:
    worker.terminate()
    assert await asyncio.to_thread(worker.wait) == 0


async def test_json_log_tells_each_chunk_and_each_change_of_state(
    producer: Producer, worker_process: StartProcess
) -> None:
    worker = await asyncio.to_thread(worker_process, log_format="json", log_level="info", concurrency=10)
    batch = await producer.submit(square.map(range(30)), batch_id="b")
    await batch.results()
    await (await producer.submit([stubborn.spec(1.0)], batch_id="c", timeout=0.1, grace=0.1)).results()
    await stop(worker)
    told = events(worker)
    names = [line["event"] for line in told]
    assert names[:2] == ["worker.jobs", "worker.started"]
    assert names[-1] == "worker.stopped"
    chunks = [line for line in told if line["event"] == "chunk.done" and line["batch"] == "b"]
    assert {line["outcome"] for line in chunks} == {"succeeded"}
    assert all(line["chunk"].startswith("b:") for line in chunks)
    [left] = [line for line in told if line["event"] == "job.abandoned"]
    assert (left["level"], left["batch"], left["job"]) == ("warning", "c", "c:0")
    assert "job.done" not in names


async def test_log_of_level_debug_tells_each_job(producer: Producer, worker_process: StartProcess) -> None:
    worker = await asyncio.to_thread(worker_process, log_format="json", log_level="debug", concurrency=10)
    jobs = [*square.map(range(20)), fail.spec("x")]
    await (await producer.submit(jobs, batch_id="b", retries=1, backoff=0.01)).results()
    await stop(worker)
    told = events(worker)
    done = {line["job"]: line["result"] for line in told if line["event"] == "job.done"}
    assert done == {**{f"b:{index}": "success" for index in range(20)}, "b:20": "failure"}
    assert [(line["job"], line["attempt"]) for line in told if line["event"] == "job.again"] == [("b:20", 1)]


async def test_plain_log_is_quiet_by_default(producer: Producer, worker_process: StartProcess) -> None:
    worker = await asyncio.to_thread(worker_process, concurrency=10)
    await (await producer.submit(square.map(range(20)))).results()
    await stop(worker)
    said = [line.split(" INFO ")[1] for line in worker.output.splitlines()]
    assert {line.split()[0] for line in said} == {"jobs", "worker"}, "no chunk, no job"
    assert said[-1].endswith("has stopped")
