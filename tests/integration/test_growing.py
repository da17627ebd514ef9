"""Jobs that add to their own batch: each once, whatever becomes of the job, and the batch ends by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.producer import Producer
from protocol import keys
from protocol.errors import StragglerError
from straggler import FailureResult, current_job, job
from tests.conftest import StartProcess, StartWorker, until
from tests.jobs import echo, square

JOBS = "tests.integration.test_growing"


@job
async def halve(number: int) -> int:
    """Add two jobs of half the number each, and so on."""
    if number > 1:
        await current_job().add([halve.spec(number // 2)] * 2)
    return number


@job
def halve_in_process(number: int) -> int:
    if number > 1:
        current_job().add_sync([halve_in_process.spec(number // 2) for _ in range(2)])
    return number


@job(isolation="thread")
def halve_in_thread(number: int) -> int:
    if number > 1:
        current_job().add_sync(halve_in_thread.spec(number // 2) for _ in range(2))
    return number


@job
async def add_and_fail(path: Path, *numbers: int) -> list[int]:
    """Add jobs at each attempt, and fail at the first ones."""
    added = await current_job().add(square.map(numbers[:2]))
    added += await current_job().add(square.map(numbers[2:]))
    with path.open("a") as file:
        file.write(f"{added}\n")
    if current_job().attempt < 3:
        raise ValueError("again")
    return added


@job
async def add_and_die(path: Path, count: int) -> str:
    """Add some jobs, kill the worker while others are being added; a later attempt adds them all."""
    for number in range(count):
        await current_job().add(echo.spec(number))
        with path.open("a") as file:
            file.write(f"{number}\n")
        if number == count // 2 and path.read_text().count(f"{number}\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job
def add_in_process_and_die(path: Path, count: int) -> str:
    for number in range(count):
        current_job().add_sync(echo.spec(number))
        with path.open("a") as file:
            file.write(f"{number}\n")
        if number == count // 2 and path.read_text().count(f"{number}\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job
async def add_to_it(unique: bool = False) -> list[int]:  # a job's parameter
    return await current_job().add([square.spec(2)], unique=unique)


@job
def add_to_it_in_process() -> list[int]:
    return current_job().add_sync([square.spec(2)])


@job
async def block_and_add() -> list[int]:
    return current_job().add_sync([square.spec(2)])


@job
async def add_by_thread() -> list[int]:
    return await asyncio.to_thread(current_job().add_sync, [square.spec(2), square.spec(3)])


@job
def add_from_many_threads() -> list[int]:
    job_here, found = current_job(), list[int]()
    threads = [threading.Thread(target=lambda n=n: found.extend(job_here.add_sync(square.spec(n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


@job
def add_from_a_fork() -> str:
    mine = current_job()
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            mine.add_sync(square.spec(2))
        except StragglerError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    with os.fdopen(read) as told:
        return told.read()


async def opened(producer: Producer, *jobs: Any, **options: Any) -> Batch[Any]:
    """Open a batch with some jobs, which goes on by itself."""
    batch = await producer.open_batch(**options)
    await batch.add(jobs)
    await batch.close(when_idle=True)
    return batch


async def values(batch: Batch[Any]) -> list[Any]:
    return await batch.gather()


# ---- where a job runs


@pytest.mark.parametrize(
    "name", ["halve", "halve_in_thread", pytest.param("halve_in_process", marks=pytest.mark.redis)]
)
async def test_a_batch_grows_by_its_own_jobs_and_ends_with_the_last(
    producer: Producer, worker: StartWorker, name: str
) -> None:
    async with worker(job_processes=2):
        batch = await opened(producer, globals()[name].spec(8))
        assert Counter(await values(batch)) == {8: 1, 4: 2, 2: 4, 1: 8}


async def test_a_thread_of_an_async_job_may_add(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        assert await values(await opened(producer, add_by_thread.spec())) == [[1, 2], 4, 9]


@pytest.mark.redis
async def test_threads_of_a_plain_job_may_add(producer: Producer, worker: StartWorker) -> None:
    async with worker(job_processes=1):
        found, *others = await values(await opened(producer, add_from_many_threads.spec()))
    assert found == list(range(1, 9))
    assert sorted(others) == [n * n for n in range(8)]


@pytest.mark.redis
async def test_a_fork_of_a_plain_job_may_not(producer: Producer, worker: StartWorker) -> None:
    async with worker(job_processes=1):
        assert await values(await opened(producer, add_from_a_fork.spec())) == [
            "a fork of a job's process cannot add jobs: the job itself must"
        ]


@pytest.mark.redis
async def test_a_suspicious_job_that_runs_alone_may_add(producer: Producer, worker: StartWorker, redis: Any) -> None:
    batch = await opened(producer, halve.spec(2))
    crash = '{"worker":"%s","start":0,"stop":1,"ending":"signal SIGKILL","doubtful":true}'
    redis.hset(keys.crashes(batch.id), f"{batch.id}:0", f"[{crash % 'a'},{crash % 'b'}]")
    redis.pexpire(keys.crashes(batch.id), 60_000)
    async with worker():
        assert await values(batch) == [2, 1, 1]


# ---- each once


async def test_a_job_that_runs_again_adds_nothing_twice(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    path = tmp_path / "told"
    async with worker():
        batch = await opened(producer, add_and_fail.spec(path, 1, 2, 3), retries=2, backoff=0.01)
        assert await values(batch) == [[1, 2, 3], 1, 4, 9]
    assert path.read_text() == "[1, 2, 3]\n" * 3


@pytest.mark.redis
@pytest.mark.parametrize("name", ["add_and_die", "add_in_process_and_die"])
async def test_a_worker_that_is_killed_while_its_job_adds_leaves_no_job_twice(
    producer: Producer, worker_process: StartProcess, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "told"
    worker_process(f"tests.jobs,{JOBS}", job_processes=1)
    batch = await opened(producer, globals()[name].spec(path, 6), retries=1, backoff=0.01)
    first, *others = await values(batch)
    assert (first, sorted(others)) == ("done", [0, 1, 2, 3, 4, 5])
    assert path.read_text().split() == ["0", "1", "2", "3", "0", "1", "2", "3", "4", "5"], "it has run twice"


@job
async def spread(names: list[str]) -> list[int]:
    return await current_job().add([echo.spec(name, key=name) for name in names], unique=True)


async def test_what_several_jobs_add_under_one_key_is_there_once(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await opened(producer, *(spread.spec(["a", "b", name]) for name in "cdef"))
        results = await batch.results()
    index_of = {result.key: result.index for result in results if result.key}
    assert Counter(result.key or "" for result in results) == {"": 4, **dict.fromkeys("abcdef", 1)}
    assert [result.value_or(None) for result in results[:4]] == [
        [index_of["a"], index_of["b"], index_of[name]] for name in "cdef"
    ]


# ---- what cannot be


@pytest.mark.parametrize("name", ["add_to_it", pytest.param("add_to_it_in_process", marks=pytest.mark.redis)])
async def test_a_batch_that_was_submitted_takes_no_jobs_from_its_own(
    producer: Producer, worker: StartWorker, name: str
) -> None:
    async with worker():
        batch = await producer.submit([globals()[name].spec()])
        [result] = await batch.results()
    assert isinstance(result, FailureResult)
    assert result.error_type.endswith("BatchClosedError")
    assert "only open_batch makes one that is added to" in result.message


async def test_a_job_without_a_key_is_refused_where_each_is_known_by_its_key(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        [result] = await (await opened(producer, add_to_it.spec(unique=True))).results()
    assert isinstance(result, FailureResult)
    assert result.message.startswith("job 0, of 'square', has no key")


async def test_the_loop_is_not_blocked_by_adding(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        [result] = await (await opened(producer, block_and_add.spec())).results()
    assert isinstance(result, FailureResult)
    assert "use `await current_job().add(...)` here" in result.message


@pytest.mark.redis
async def test_a_header_that_is_not_ours_is_said_to_the_job_in_its_process(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async with worker():
        batch = await opened(producer, add_late.spec(tmp_path / "there", tmp_path / "go", tmp_path / "said"))
        await until((tmp_path / "there").exists)
        redis.hset(keys.batch(batch.id), "total", "many")
        (tmp_path / "go").touch()
        await until(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text())
        redis.hset(keys.batch(batch.id), "total", 1)
        await batch.close()
        await batch.results()
    assert "no header of a batch" in (tmp_path / "said").read_text()


@job
def add_late(there: Path, go: Path, said: Path) -> None:
    there.touch()
    while not go.exists():
        threading.Event().wait(0.01)
    try:
        current_job().add_sync([square.spec(2)])
    except StragglerError as error:
        said.write_text(str(error))


async def test_what_a_job_leaves_running_adds_no_more(producer: Producer, worker: StartWorker) -> None:
    told: list[str] = []

    @job
    async def leave_running() -> None:
        asyncio.get_running_loop().call_later(
            0.05, lambda mine: tasks.append(asyncio.ensure_future(late(mine))), current_job()
        )

    async def late(mine: Any) -> None:
        try:
            await mine.add([square.spec(2)])
        except StragglerError as error:
            told.append(str(error))

    tasks: list[asyncio.Future[None]] = []
    async with worker():
        batch = await producer.open_batch()
        await batch.add([leave_running.spec()])
        await until(lambda: told)
        await batch.close()
    assert told == [f"job {batch.id}:0 is over, and adds no more jobs"]


async def test_a_job_that_is_cancelled_while_it_adds_harms_no_connection(
    producer: Producer, worker: StartWorker
) -> None:
    @job
    async def add_for_ever() -> None:
        while True:
            await current_job().add([])
            await current_job().add(square.spec(2))

    async with worker():
        batch = await producer.open_batch(timeout=0.1)
        await batch.add([add_for_ever.spec()] * 5)
        await batch.close(when_idle=True)
        results = await batch.results()
    assert Counter(result.status for result in results[:5]) == {"timeout": 5}
    assert {result.status for result in results[5:]} == {"success"}
