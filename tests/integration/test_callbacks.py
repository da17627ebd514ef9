"""A batch's `on_complete` job is started once, when the batch is complete, whoever records its last result."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.batches import BatchStatus
from protocol.errors import ArgumentsError
from protocol.settings import Settings
from straggler import current_job, job
from tests.conftest import ROOT, StartProcess, StartWorker, until
from tests.jobs import fail, hang, nap, report, square
from tests.redis_server import RedisServer


async def callback_of(producer: Producer, batch: Batch[Any]) -> Batch[Any]:
    """Find the batch of a complete batch's callback."""
    status = await batch.status()
    assert status.complete
    assert status.callback is not None
    return await producer.attach(status.callback)


async def value_of(callback: Batch[Any]) -> Any:
    [value] = await callback.gather()
    return value


def runs(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def has_runs(path: Path, count: int) -> bool:
    return len(runs(path)) >= count


async def test_callback_gets_the_status_of_the_complete_batch(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    async with worker():
        jobs = [*square.map(range(300)), hang.spec()]
        batch = await producer.submit(jobs, timeout=0.2, grace=0, on_complete=report.spec(tmp_path / "runs"))
        await batch.results()
        callback = await callback_of(producer, batch)
        assert callback.id == f"{batch.id}.done"
        assert await value_of(callback) == {"total": 301, "done": 301, "success": 300, "timeout": 1}
    status = await callback.status()
    assert status.callback_of == batch.id
    assert status.name == f"on_complete of {batch.id}"
    assert [run[1:] for run in runs(tmp_path / "runs")] == [["1", batch.id]]


async def test_callback_is_told_all_that_the_status_says(producer: Producer, worker: StartWorker) -> None:
    told: list[BatchStatus] = []

    @job
    async def listen(status: BatchStatus) -> None:
        told.append(status)

    about: dict[str, Any] = {"name": 'a "name"\n', "metadata": {"x": [1.5, None]}, "deadline": 60}
    async with worker(concurrency=1):
        first = await producer.submit(fail.map(map(str, range(3))), **about)
        await first.results()
        batch = await first.retry("failure", max_failures=1, on_complete=listen.spec())
        await batch.cancel()
        await batch.results()
        callback = await callback_of(producer, batch)
        await callback.results()
        expected = {**(await batch.status()).model_dump(), "callback": None}
        assert [status.model_dump() for status in told] == [expected]
    assert told[0].parent == first.id
    assert told[0].stopped is not None


@pytest.mark.redis
async def test_each_batch_has_one_callback_though_its_workers_are_killed(
    producer: Producer, worker_process: StartProcess, redis: Any, tmp_path: Path
) -> None:
    trace = tmp_path / "runs"
    workers = [worker_process(lease=1, concurrency=20) for _ in range(2)]
    callback = report.spec(trace)
    batches = [await producer.submit(nap.map([0.1] * 40), batch_id=f"b{n}", on_complete=callback) for n in range(6)]
    for number in range(2):
        victim = workers[number % 2]
        await until(partial(has_runs, trace, 2 * number))
        victim.kill()
        workers[number % 2] = worker_process(lease=1, concurrency=20)
    for batch in batches:
        assert len(await batch.results()) == 40
        assert (await value_of(await callback_of(producer, batch)))["success"] == 40
    named = {key.decode() for key in redis.scan_iter("straggler:batch:*.done*") if redis.type(key) == b"hash"}
    assert {name for name in named if name.count(":") == 2} == {keys.batch(f"b{n}.done") for n in range(6)}


async def test_callback_that_fails_is_tried_again(producer: Producer, worker: StartWorker) -> None:
    attempts: list[int] = []

    @job(retries=2, backoff=0.01)
    async def falter(status: BatchStatus) -> int:
        attempts.append(current_job().attempt)
        if len(attempts) < 3:
            raise ValueError(status.batch_id)
        return status.total

    async with worker():
        batch = await producer.submit(square.map(range(3)), retries=0, on_complete=falter.spec(timeout=5))
        await batch.results()
        assert await value_of(await callback_of(producer, batch)) == 3
    assert attempts == [1, 2, 3]


async def test_empty_batch_starts_its_callback(producer: Producer, worker: StartWorker, tmp_path: Path) -> None:
    async with worker():
        batch = await producer.submit(square.map([]), on_complete=report.spec(tmp_path / "runs"))
        assert (await value_of(await callback_of(producer, batch)))["total"] == 0


async def test_batch_that_a_collector_closes_starts_its_callback(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    jobs = square.map(range(3))
    batch = await producer.submit(jobs, deadline=0.1, grace=0, on_complete=report.spec(tmp_path / "runs"))
    assert {result.status for result in await batch.results()} == {"timeout"}
    async with worker():
        assert (await value_of(await callback_of(producer, batch)))["timeout"] == 3


async def test_close_of_a_batch_whose_jobs_are_done_starts_its_callback(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    async with worker():
        batch = await producer.open_batch(on_complete=report.spec(tmp_path / "runs"))
        await batch.add(square.map(range(3)))
        async for _ in batch.as_completed():
            if (await batch.status()).success == 3:
                break
        assert (await batch.status()).callback is None
        await batch.close()
        await batch.close()
        assert (await value_of(await callback_of(producer, batch)))["success"] == 3


async def test_cancel_starts_the_callback_even_if_no_worker_was_there(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    batch = await producer.submit(square.map(range(300)), on_complete=report.spec(tmp_path / "runs"))
    await batch.cancel()
    await batch.results()
    async with worker():
        assert await value_of(await callback_of(producer, batch)) == {
            "total": 300,
            "done": 300,
            "success": 0,
            "timeout": 0,
        }


async def test_batch_that_is_stopped_early_starts_its_callback(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    async with worker(concurrency=2):
        batch = await producer.submit(
            fail.map(map(str, range(100))), max_failures=3, on_complete=report.spec(tmp_path / "runs")
        )
        await batch.results()
        assert (await value_of(await callback_of(producer, batch)))["done"] == 100


async def test_same_submission_again_starts_no_second_callback(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async with worker():
        for _ in range(3):
            batch = await producer.submit(
                square.map(range(3)), batch_id="b", on_complete=report.spec(tmp_path / "runs")
            )
            await batch.results()
            await (await callback_of(producer, batch)).results()
    assert len(runs(tmp_path / "runs")) == 1
    assert not redis.exists(keys.batch("b.done-2"))


async def test_batch_that_is_begun_anew_has_a_callback_of_its_own(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async with worker():
        for _ in range(2):
            batch = await producer.submit(
                square.map(range(3)), batch_id="b", on_complete=report.spec(tmp_path / "runs")
            )
            await batch.results()
            callback = await callback_of(producer, batch)
            await callback.results()
            redis.delete(*redis.keys(f"{keys.batch('b')}"), *redis.keys(f"{keys.batch('b')}:*"))
    assert callback.id == "b.done-2"
    assert len(runs(tmp_path / "runs")) == 2


async def test_callback_that_does_not_fit_is_refused_before_anything_is_sent(producer: Producer) -> None:
    with pytest.raises(ArgumentsError, match="on_complete: "):
        await producer.submit(square.map(range(3)), batch_id="b", on_complete=square.spec(1))
    assert await producer.batches() == []


async def test_spoilt_queue_keeps_no_batch_from_its_end(producer: Producer, redis: Any, tmp_path: Path) -> None:
    batch = await producer.submit(
        square.map(range(3)), deadline=0.1, grace=0, on_complete=report.spec(tmp_path / "runs")
    )
    redis.delete(keys.queue("default"))
    redis.set(keys.queue("default"), "no queue", ex=60)
    assert len(await batch.results()) == 3
    status = await batch.status()
    assert status.complete
    assert status.callback is None
    assert not redis.exists(keys.batch(f"{batch.id}.done"))


# ---- with real processes and signals


@pytest.mark.redis
async def test_callback_whose_worker_is_killed_runs_again(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "runs"
    dying = worker_process(lease=1)
    batch = await producer.submit(square.map(range(100)), on_complete=report.spec(trace, seconds=1.0))
    await until(lambda: runs(trace))
    os.kill(int(runs(trace)[0][0]), signal.SIGKILL)
    dying.kill()
    worker_process(lease=1)
    callback = await callback_of(producer, batch)
    assert (await value_of(callback))["success"] == 100
    assert len(runs(trace)) == 2
    assert (await callback.status()).total == 1


PRODUCER = """
import asyncio, sys
from pathlib import Path
from straggler import Producer
from tests.jobs import nap, report

async def main():
    async with Producer(sys.argv[1]) as producer:
        callback = report.spec(Path(sys.argv[2]))
        await producer.submit(nap.map([0.3] * 50), batch_id="b", on_complete=callback)
        print("submitted", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.redis
async def test_callback_of_a_killed_producer_is_started_once(
    producer: Producer, worker_process: StartProcess, redis_url: str, tmp_path: Path
) -> None:
    trace = tmp_path / "runs"
    command = [sys.executable, "-c", PRODUCER, redis_url, str(trace)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as gone:
        assert gone.stdout is not None
        await asyncio.to_thread(gone.stdout.readline)
        gone.kill()
    # Two workers finish the batch, and one of them has its last job.
    for _ in range(2):
        worker_process(concurrency=5)
    await until(lambda: runs(trace))
    callback = await producer.attach("b.done")
    assert (await value_of(callback))["success"] == 50
    assert len(runs(trace)) == 1


@pytest.mark.redis
async def test_callback_is_started_once_over_a_restart_of_redis(
    server: RedisServer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "runs"
    worker_process(redis_url=server.url, lease=2)
    async with Producer(server.url, settings=Settings()) as producer:
        batch = await producer.submit(nap.map([0.5] * 20), on_complete=report.spec(trace))
        await asyncio.sleep(0.3)
        server.kill()  # the results are held, and recorded once it is back
        await asyncio.sleep(0.7)
        await asyncio.to_thread(server.start)
        assert len(await batch.results()) == 20
        assert (await value_of(await callback_of(producer, batch)))["success"] == 20
    assert len(runs(trace)) == 1
