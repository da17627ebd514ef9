"""A deleted batch is gone: its keys, its chunks in the queue, its jobs that run; and nothing else is."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchLostError, BatchNotFoundError
from straggler import job
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.integration.test_growth import SHARED
from tests.jobs import append_line, fail, hang, report, square, wait_for_file


def left_of(redis: Any, batch_id: str) -> list[bytes]:
    """Name what there is of a batch, in the queue, too."""
    found = [key for key in redis.scan_iter(count=1000) if key not in SHARED and f":{batch_id}".encode() in key]
    waiting = redis.zrange(keys.queue("default"), 0, -1)
    return found + [chunk for chunk in waiting if chunk.startswith(f"{batch_id}:".encode())]


@job
async def clean_up(path: Path) -> None:
    """Hang; leave a trace of the start, and another one of the cleanup."""
    path.write_text("begun")
    try:
        await asyncio.Event().wait()
    finally:
        path.write_text("cleaned up")


def test_no_key_of_a_batch_is_forgotten() -> None:
    of_one_batch = [
        make
        for make in vars(keys).values()
        if inspect.isfunction(make) and [*inspect.signature(make).parameters] == ["batch_id"]
    ]
    assert {make("b") for make in of_one_batch if make is not keys.of_batch} == set(keys.of_batch("b"))


async def test_jobs_that_wait_never_start_and_those_that_run_are_stopped(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async with worker(concurrency=2, lease=600.0) as working:  # it would look by itself after a third of that
        jobs = [clean_up.spec(tmp_path / "a"), clean_up.spec(tmp_path / "b"), append_line.spec(tmp_path / "c", "ran")]
        batch = await producer.submit(jobs, batch_id="gone")
        await until_running(batch, 2)
        await until((tmp_path / "b").exists)
        await batch.delete()
        await until(lambda: [(tmp_path / name).read_text() for name in "ab"] == ["cleaned up"] * 2)
        other = await producer.submit(square.map(range(10)))
        assert await other.gather() == [number**2 for number in range(10)]
        await until(lambda: not working.crew.chunks)
    assert left_of(redis, "gone") == []
    assert not (tmp_path / "c").exists()


@pytest.mark.redis
async def test_worker_process_stops_the_jobs_of_a_deleted_batch(
    producer: Producer, worker_process: StartProcess, redis: Any, tmp_path: Path
) -> None:
    worker_process(concurrency=1)
    batch = await producer.submit([append_line.spec(tmp_path / "a", "begun", 60.0)], batch_id="gone")
    await until((tmp_path / "a").exists)
    await batch.delete()
    other = await producer.submit(square.map(range(10)))
    assert len(await other.gather()) == 10
    assert left_of(redis, "gone") == []


async def test_nothing_is_left_of_many_chunks_and_retries(
    producer: Producer, worker: StartWorker, redis: Any, door: Path
) -> None:
    jobs = [fail.spec("again"), *square.map(range(800)), wait_for_file.spec(door), *[hang.spec()] * 300]
    async with worker(concurrency=2):
        batch = await producer.submit(jobs, batch_id="gone", retries=3, backoff=60)
        await until(lambda: any(b"+0" in chunk for chunk in redis.zrange(keys.queue("default"), 0, -1)))
        await until_running(batch, 2)
        await batch.cancel([805], "one")
        await batch.delete()
        door.touch()
        with pytest.raises(BatchLostError):
            await batch.status()
    assert left_of(redis, "gone") == []
    assert await producer.batches() == []


async def test_complete_batch_is_deleted_and_its_id_is_free(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async with worker():
        for _ in range(2):
            batch = await producer.submit([fail.spec("no")], batch_id="b", on_complete=report.spec(tmp_path / "runs"))
            assert len(await batch.results()) == 1
            await batch.delete()
            await batch.delete()
            with pytest.raises(BatchNotFoundError):
                await producer.attach("b")
    assert not redis.keys("straggler:batch:b:*")


async def test_deleted_redrive_is_no_child_any_more(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")])
        await batch.results()
        first, second = await batch.retry("failure", batch_id="one"), await batch.retry("failure", batch_id="two")
        await first.delete()
        assert (await batch.status()).children == ("two",)
        assert [result.job_id for result in await batch.results(lineage=True)] == ["two:0"]
        await second.delete()
        assert (await batch.status()).children == ()
        assert [result.job_id for result in await batch.results(lineage=True)] == [f"{batch.id}:0"]


async def test_deletion_goes_on_where_it_was_cut_off(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="gone")
    redis.delete(keys.batch("gone"))
    await batch.delete()
    assert left_of(redis, "gone") == []


async def test_spoilt_keys_go_too(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3)), batch_id="gone")
    for name in (keys.batch, keys.chunks, keys.retries):
        redis.set(name("gone"), "other bytes", ex=60)
    await batch.delete()
    assert not redis.keys("straggler:batch:gone*")


async def test_collector_of_a_deleted_batch_is_told(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(3)))
    collecting = asyncio.create_task(batch.results())
    await asyncio.sleep(0)
    await batch.delete()
    with pytest.raises(BatchNotFoundError):
        await collecting
