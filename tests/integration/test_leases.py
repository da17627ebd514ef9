"""Workers that die or are told to stop: their chunks go on elsewhere, and no attempt is burnt without need."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.jobs import JobSpec
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.jobs import append_and_wait, append_line, square, wait_for_file

pytestmark = pytest.mark.redis


def trace_of(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def ended(process: Any) -> int:
    """Wait for a process without holding up the loop."""
    return int(await asyncio.to_thread(process.wait))


async def test_a_worker_that_is_told_to_stop_lets_running_jobs_finish(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    worker = worker_process(shutdown_wait=10)
    batch = await producer.submit(append_line.starmap([(tmp_path / "trace", "a", 0.5)]))
    await until(lambda: trace_of(tmp_path / "trace"))
    worker.terminate()
    assert await ended(worker) == 0
    [result] = await batch.results()
    assert (result.status, result.attempt) == ("success", 1)


async def test_what_is_handed_back_at_a_stop_runs_elsewhere_with_no_attempt_burnt(
    producer: Producer, redis: Any, worker_process: StartProcess, door: Path
) -> None:
    first = worker_process(shutdown_wait=0.1)
    batch: Batch[Any] = await producer.submit([*[wait_for_file.spec(door) for _ in range(5)], square.spec(3)])
    assert (await batch.wait(return_when="FIRST_COMPLETED")).done[0].value_or(None) == 9
    await until_running(batch, 5)
    first.terminate()
    assert await ended(first) == 0
    assert not redis.keys("arq:in-progress:*"), "handed back, not left to lapse"
    assert (await batch.status()).queued == 5
    worker_process()
    door.touch()
    results = await batch.results()
    assert {result.attempt for result in results} == {1}
    assert len({result.worker for result in results[:5]} - {results[5].worker}) == 1, "all on the second"


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hurries(
    producer: Producer, worker_process: StartProcess, tmp_path: Path, first: signal.Signals
) -> None:
    worker = worker_process(shutdown_wait=600)
    batch = await producer.submit([append_line.spec(tmp_path / "trace", "here", 600.0)], timeout=900)
    await until((tmp_path / "trace").exists)  # else it has nothing to wait for, and leaves at the first
    os.kill(worker.pid, first)
    await asyncio.to_thread(worker.wait_for_output, "worker stops")
    os.kill(worker.pid, first)
    assert await ended(worker) == 0
    assert (await batch.status()).queued == 1


async def test_an_idle_worker_that_is_told_to_stop_leaves_at_once_and_leaves_nothing(
    worker_process: StartProcess, redis: Any
) -> None:
    worker = worker_process(shutdown_wait=600)
    await until(lambda: redis.exists(keys.QUEUES))
    worker.terminate()
    assert await ended(worker) == 0
    assert redis.keys("*") == [keys.QUEUES.encode()], "that there is such a queue stays known"


async def test_jobs_of_a_killed_worker_run_again_on_another(
    producer: Producer, worker_process: StartProcess, tmp_path: Path, door: Path
) -> None:
    trace = tmp_path / "trace"
    first = worker_process(lease=1)

    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        for number in range(3):
            yield append_line.spec(trace, f"quick-{number}")
        for number in range(3):
            yield append_and_wait.spec(trace, f"slow-{number}", door)

    batch = await producer.submit(stream())
    await until(lambda: len(trace_of(trace)) == 6)
    while (await batch.status()).done < 3:  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    first.kill()
    worker_process(lease=1)
    door.touch()
    results = await batch.results()
    assert [result.status for result in results] == ["success"] * 6
    assert {result.attempt for result in results} == {1}, "nobody has seen a crash: a lease has lapsed"
    pids = [result.value_or(0) for result in results]
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1
    assert pids[0] != pids[3], "the quick ones of the first worker stand, the slow ones are the second's"
    runs = sorted(line for _, _, line in trace_of(trace))
    assert runs == sorted([f"quick-{n}" for n in range(3)] + [f"slow-{n}" for n in range(3)] * 2)


async def test_a_lease_is_kept_as_long_as_its_worker_lives(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with worker(lease=1.5), worker(lease=1.5):  # a machine may stand still for a second
        batch = await producer.submit([append_line.spec(trace, "a", 2.5)])
        [result] = await batch.results()
    assert result.attempt == 1
    assert len(trace_of(trace)) == 1


async def test_a_worker_whose_lease_is_gone_stops_its_jobs(
    producer: Producer, redis: Any, worker: StartWorker, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with worker(lease=0.5) as running:
        batch = await producer.submit([append_line.spec(trace, "a", 300.0)])
        await until(lambda: trace_of(trace))
        [lease] = redis.keys("arq:in-progress:*")
        redis.set(lease, "another worker", px=60_000)
        await until(lambda: running.crew.slots.used == 0)
        assert redis.get(lease) == b"another worker", "not ours to release"
        assert (await batch.status()).done == 0


async def test_a_live_worker_is_known_and_a_dead_one_forgotten(
    producer: Producer, redis: Any, worker: StartWorker
) -> None:
    async with worker(concurrency=7) as running:
        name = keys.worker(running.crew.worker_id)
        await until(lambda: redis.exists(name))
        about = redis.hgetall(name)
        assert (about[b"slots"], int(about[b"pid"])) == (b"7", os.getpid())
        assert redis.zrange(keys.workers("default"), 0, -1) == [running.crew.worker_id.encode()]
    assert not redis.exists(name)
    assert not redis.exists(keys.workers("default"))
