"""What burns an attempt and what does not; jobs that run again after a failure; jobs under which workers die."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol import keys
from protocol.connection import Payload, Scripts
from protocol.jobs import JobSpec
from straggler import FailureResult, LostResult, Retry, TimeoutResult, current_job, job
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.jobs import append_line, fail, hang, square, wait_for_file
from workers.claims import Claimed
from workers.crashes import Crash, is_poison


def runs_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def note(path: Path, text: object) -> None:
    with path.open("a") as file:
        file.write(f"{text}\n")


# ---- failures


async def test_a_job_that_fails_runs_again_until_it_succeeds(producer: Producer, worker: StartWorker) -> None:
    @job
    async def succeed_at(attempt: int) -> int:
        if current_job().attempt < attempt:
            raise ValueError("not yet")
        return current_job().attempt

    async with worker():
        batch = await producer.submit(succeed_at.map([1, 2, 3, 4, 1]), retries=2, backoff=0.01)
        results = await batch.results()
    assert [(result.status, result.attempt) for result in results] == [
        ("success", 1), ("success", 2), ("success", 3), ("failure", 3), ("success", 1),
    ]  # fmt: skip


async def test_each_retry_waits_longer_than_the_one_before(producer: Producer, worker: StartWorker) -> None:
    times: list[float] = []

    @job
    async def fail_and_note() -> None:
        times.append(time.monotonic())
        raise ValueError("no")

    async with worker():
        batch = await producer.submit([fail_and_note.spec()], retries=3, backoff=0.1)
        [result] = await batch.results()
    assert (result.status, result.attempt, len(times)) == ("failure", 4, 4)
    waits = [later - earlier for earlier, later in pairwise(times)]
    # 0.1, 0.2, 0.4 s, each times 0.5 to 1.5: never earlier.
    assert all(wait >= base * 0.5 for wait, base in zip(waits, (0.1, 0.2, 0.4), strict=True))


async def test_a_retry_keeps_nobody_waiting(producer: Producer, worker: StartWorker, door: Path) -> None:
    @job
    async def fail_once() -> int:
        if current_job().attempt == 1:
            raise ValueError("once")
        return 2

    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        yield wait_for_file.spec(door)
        yield fail_once.spec()

    async with worker():
        batch = await producer.submit(stream(), retries=1, backoff=0.01)
        async for result in batch.as_completed():
            assert (result.index, result.attempt) == (1, 2), "while its neighbour goes on"
            break
        door.touch()
        await batch.wait()


@pytest.mark.parametrize("isolation", ["loop", "process", "thread"])
async def test_a_job_may_say_when_it_wants_to_run_again(
    producer: Producer, worker: StartWorker, isolation: str, tmp_path: Path
) -> None:
    path = tmp_path / "times"
    async with worker():
        spec: JobSpec[Any] = JobSpec(function=f"ask_again_in_{isolation}", args=(str(path), 0.3))
        batch = await producer.submit([spec], retries=1, backoff=1000)
        [result] = await batch.results()
    assert (result.status, result.attempt) == ("success", 2)
    first, second = map(float, runs_of(path))
    assert 0.3 <= second - first < 10


@job
async def ask_again_in_loop(path: Path, after: float) -> None:
    ask_again(path, after)


@job
def ask_again_in_process(path: Path, after: float) -> None:
    ask_again(path, after)


@job(isolation="thread")
def ask_again_in_thread(path: Path, after: float) -> None:
    ask_again(path, after)


def ask_again(path: Path, after: float) -> None:
    note(path, time.monotonic())
    if current_job().attempt == 1:
        raise Retry(after=after)


async def test_who_asks_to_run_again_without_retries_left_fails_and_is_told_so(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    async with worker():
        [result] = await (await producer.submit([ask_again_in_loop.spec(tmp_path / "times", 0.0)])).results()
    assert isinstance(result, FailureResult)
    assert "has no retries left" in result.message


async def test_a_timeout_runs_again_only_where_that_is_asked_for(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        plain = await producer.submit([hang.spec()], timeout=0.05, retries=2, backoff=0.01)
        asked = await producer.submit(
            [hang.spec(), fail.spec("no")], timeout=0.05, retries=2, backoff=0.01, retry_on=("timeout",)
        )
        [timeout] = await plain.results()
        assert (timeout.status, timeout.attempt) == ("timeout", 1)
        assert [(result.status, result.attempt) for result in await asked.results()] == [("timeout", 3), ("failure", 1)]


async def test_the_batchs_retries_win_over_the_functions(producer: Producer, worker: StartWorker) -> None:
    @job(retries=2, backoff=0.01)
    async def fails() -> None:
        raise ValueError("no")

    async with worker():
        [own] = await (await producer.submit([fails.spec()])).results()
        [batchs] = await (await producer.submit([fails.spec()], retries=1)).results()
        [none] = await (await producer.submit([fails.spec()], retries=0)).results()
    assert (own.attempt, batchs.attempt, none.attempt) == (3, 2, 1)


async def test_a_retry_that_could_not_start_before_the_deadline_is_none(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], retries=5, backoff=1000, deadline=60)
        [result] = await batch.results()
    assert (result.status, result.attempt) == ("failure", 1)


async def test_no_job_outlasts_its_batchs_deadline_and_none_starts_after_it(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker(concurrency=1):
        batch = await producer.submit([hang.spec(), square.spec(3)], timeout=30, deadline=0.3)
        running, waiting = await batch.results()
    assert isinstance(running, TimeoutResult)
    assert isinstance(waiting, TimeoutResult)
    assert (running.phase, running.stopped, running.limit) == ("batch", "cancelled", 0.3)
    assert (waiting.phase, waiting.stopped, waiting.limit) == ("batch", "not started", 0.3)


@pytest.mark.redis
async def test_a_job_that_waits_to_run_again_runs_once_though_its_chunk_comes_back(
    producer: Producer, worker: StartWorker, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"

    @job
    async def fail_once(path: Path) -> int:
        note(path, current_job().attempt)
        if current_job().attempt == 1:
            raise ValueError("once")
        return current_job().attempt

    async def stream() -> AsyncIterator[JobSpec[Any]]:  # travels as one chunk
        yield fail_once.spec(trace)
        yield append_line.spec(tmp_path / "other", "a", 0.5)

    async with worker():
        batch = await producer.submit(stream(), retries=1, backoff=1)
        await until(lambda: runs_of(trace) == ["1"])
    async with worker():  # the first was told to stop, and has handed back what ran
        assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 2), ("success", 1)]
    assert runs_of(trace) == ["1", "2"]


# ---- deaths


@job
async def die_soon(path: Path) -> None:
    """Die while nobody holds the loop, as by a thread or by the kernel's choice."""
    note(path, current_job().attempt)
    asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGKILL)
    await asyncio.sleep(30)


@job
async def overlap(path: Path) -> None:
    """Fail where another run of this is going on."""
    mark = path / "running"
    mark.touch(exist_ok=False)
    await asyncio.sleep(0.02)
    mark.unlink()


@job
async def fail_at_first_run(path: Path) -> int:
    """Fail at the first run, whatever attempt that is."""
    note(path, current_job().attempt)
    if len(runs_of(path)) == 1:
        raise ValueError("at first")
    return current_job().attempt


@job
async def die_then_fail(path: Path) -> int:
    """Kill the worker, then fail, then succeed."""
    note(path, current_job().attempt)
    match len(runs_of(path)):
        case 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case 2:
            raise ValueError("not yet")
    return current_job().attempt


@pytest.mark.redis
async def test_a_death_is_none_of_the_jobs_that_have_left_the_chunk_to_run_again(
    producer: Producer, worker_process: StartProcess, tmp_path: Path, door: Path
) -> None:
    trace = tmp_path / "trace"

    async def stream() -> AsyncIterator[JobSpec[int]]:  # travels as one chunk
        yield fail_at_first_run.spec(trace)
        yield wait_for_file.spec(door)

    worker = worker_process(jobs="tests.jobs,tests.integration.test_attempts")
    batch = await producer.submit(stream(), retries=1, backoff=3)
    while not await producer.redis.hlen(keys.retries(batch.id)):  # type: ignore[misc]  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    [worker_id] = await producer.workers()
    os.kill(int(await producer.redis.hget(keys.worker(worker_id), "pid") or 0), signal.SIGKILL)  # type: ignore[misc]
    await until(lambda: worker.output.count("takes jobs from") == 2)
    door.touch()
    assert [(result.status, result.attempt) for result in await batch.results()] == [("success", 2), ("success", 2)]
    assert runs_of(trace) == ["1", "2"]


@pytest.mark.redis
async def test_a_death_and_a_failure_both_burn_their_attempt(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    worker_process(jobs="tests.jobs,tests.integration.test_attempts")
    batch = await producer.submit([die_then_fail.spec(trace)], retries=1, backoff=0.1)
    [result] = await batch.results()
    assert (result.status, result.attempt) == ("success", 3)
    assert runs_of(trace) == ["1", "2", "3"]


@pytest.mark.redis
async def test_poison_that_nobody_saw_at_work_is_found_and_lost_alone(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    worker_process(jobs="tests.jobs,tests.integration.test_attempts", concurrency=20)

    async def stream() -> AsyncIterator[JobSpec[Any]]:  # travels as one chunk
        for number in range(10):
            yield append_line.spec(tmp_path / "others", str(number), 0.5)
        yield die_soon.spec(trace)

    batch = await producer.submit(stream())
    *others, lost = await batch.results()
    assert isinstance(lost, LostResult)
    assert (lost.attempt, lost.reason) == (3, "its worker process ended under it 3 times, last by signal SIGKILL")
    assert runs_of(trace) == ["1", "2", "3"]
    assert {result.status for result in others} == {"success"}
    assert max(result.attempt for result in others) <= 3


@pytest.mark.redis
async def test_poison_is_found_by_its_lapsed_leases_where_no_supervisor_sees_it_die(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"

    async def stream() -> AsyncIterator[JobSpec[Any]]:  # travels as one chunk
        for number in range(5):
            yield append_line.spec(tmp_path / "others", str(number), 0.3)
        yield die_soon.spec(trace)

    batch = await producer.submit(stream())
    for death in (1, 2):
        started = worker_process(jobs="tests.jobs,tests.integration.test_attempts", lease=1)
        await until(lambda death=death: len(runs_of(trace)) == death)  # type: ignore[misc]
        started.kill()  # its worker dies with it
    worker_process(jobs="tests.jobs,tests.integration.test_attempts", lease=1)
    *others, lost = await batch.results()
    assert isinstance(lost, LostResult)
    assert (lost.attempt, len(runs_of(trace))) == (3, 3)
    assert "last by signal SIGKILL" in lost.reason, "alone in a process of its own"
    assert {result.status for result in others} == {"success"}


@pytest.mark.redis
async def test_suspicious_jobs_run_one_by_one(
    producer: Producer, worker: StartWorker, redis: Any, tmp_path: Path
) -> None:
    async def stream() -> AsyncIterator[JobSpec[Any]]:  # travels as one chunk
        for _ in range(10):
            yield overlap.spec(tmp_path)

    batch = await producer.submit(stream())
    chunk = f"{batch.id}:0"
    crash = '{"worker":"%s","start":0,"stop":10,"ending":"signal SIGKILL"}'
    redis.hset(keys.crashes(batch.id), chunk, f"[{crash % 'one'},{crash % 'two'}]")
    redis.pexpire(keys.crashes(batch.id), 60_000)
    async with worker():
        results = await batch.results()
    assert [(result.status, result.attempt) for result in results] == [("success", 3)] * 10


@pytest.mark.redis
async def test_suspicious_jobs_that_travel_as_rows_run_one_by_one_with_their_arguments(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    batch = await producer.submit(square.map(range(2)))
    chunk = f"{batch.id}:0"
    crash = '{"worker":"%s","start":0,"stop":2,"ending":"signal SIGKILL"}'
    redis.hset(keys.crashes(batch.id), chunk, f"[{crash % 'one'},{crash % 'two'}]")
    redis.pexpire(keys.crashes(batch.id), 60_000)
    async with worker():
        assert await batch.gather() == [0, 1]


@job
async def exit_in_a_thread(path: Path) -> None:
    note(path, current_job().index)
    threading.Timer(0.1, os._exit, (7,)).start()
    await asyncio.sleep(30)


@job
async def note_and_sleep(path: Path, seconds: float) -> None:
    note(path, current_job().index)
    await asyncio.sleep(seconds)


@pytest.mark.redis
async def test_poison_condemns_none_of_its_neighbours(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    # One process for plain functions: while one suspicious job runs alone, others wait for that.
    worker_process(jobs="tests.integration.test_attempts", concurrency=4, job_processes=1)
    killers = {1, 2}
    jobs: list[JobSpec[Any]] = [
        exit_in_a_thread.spec(trace) if number in killers else note_and_sleep.spec(trace, 0.3) for number in range(12)
    ]
    batch = await producer.submit(jobs)
    results = await batch.results()
    assert {result.index for result in results if result.status == "lost"} == killers
    assert {result.status for result in results} == {"success", "lost"}
    runs = runs_of(trace)
    # One that was only beside the other when that ended their process has not burnt an attempt by it.
    counts = [runs.count(str(number)) for number in killers]
    assert min(counts) >= 3, counts
    assert max(counts) <= 6, counts


def test_a_death_in_doubt_burns_no_attempt_and_condemns_only_after_many() -> None:
    known = Crash(worker="w", start=3, stop=4, ending="signal SIGKILL")
    doubtful = known.model_copy(update={"doubtful": True})
    payload = Payload("b", 0, 10, None, 0.0)
    claimed = Claimed("b:0", payload, b"{}", None, b"[]", b"", [known, doubtful, doubtful], {3: 1})
    assert (claimed.attempt(3), claimed.attempt(4)) == (3, 1), "a failure and one death that is known"
    assert not is_poison([known, known, doubtful, doubtful, doubtful])
    assert is_poison([known] * 3)
    assert is_poison([doubtful] * 6)


@job
async def hear_cancel(path: Path) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        note(path, "cancelled")


# ---- what burns no attempt


@pytest.mark.redis
async def test_a_lease_that_lapsed_under_a_living_worker_was_no_crash(
    producer: Producer, worker: StartWorker, redis: Any, door: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = await producer.submit([wait_for_file.spec(door)])
    chunk = f"{batch.id}:0"
    async with worker(lease=1.0, concurrency=1):  # it has no slot to take the chunk again itself
        await until_running(batch, 1)
        redis.delete(keys.ARQ_IN_PROGRESS + chunk)  # as a Redis that was away for long has it
        redis.zadd(keys.queue("default"), {chunk: 1})
        async with worker():
            await until(lambda: "lease.lost" in [getattr(record, "event", "") for record in caplog.records])
            door.touch()
            [result] = await batch.results()
    assert (result.status, result.attempt) == ("success", 1)


@pytest.mark.redis
async def test_a_worker_cut_off_from_redis_stops_its_jobs_when_their_lease_has_lapsed(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with worker(lease=1.0) as running:
        batch = await producer.submit([hear_cancel.spec(tmp_path / "cancelled")], timeout=60)
        await until_running(batch, 1)

        async def hear_nothing(*_: Any) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(running.crew.leases, "_renew", hear_nothing)
        await until(lambda: runs_of(tmp_path / "cancelled"))
        monkeypatch.undo()


# ---- scripts, each called twice


@pytest.mark.redis
async def test_a_claim_whose_reply_was_lost_brings_the_same_chunks_again(producer: Producer, redis: Any) -> None:
    await producer.submit(square.map(range(40)))
    names = (keys.queue("default"), keys.wake("default"), keys.claim("w"))
    args = ("w", 10_000, 5, 0, 0, 0, 16, 1000, 60_000, "token", "", 0, 0, "", -1)
    scripts = Scripts(producer.redis)
    first, second = [await scripts.run("claim", names, args) for _ in range(2)]
    assert first[7:] == second[7:]
    assert len(first[7:]) > 1
    assert len(redis.keys(f"{keys.ARQ_IN_PROGRESS}*")) == len(first[7:])
    third = await scripts.run("claim", names, (*args[:9], "another", *args[10:]))
    assert not {chunk[0] for chunk in third[7:]} & {chunk[0] for chunk in first[7:]}
