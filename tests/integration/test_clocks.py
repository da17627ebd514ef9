"""Each clock of a job, alone and beside the others: the one that runs out first stops it, and is named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol.errors import OptionError
from straggler import FailureResult, JobSpec, SuccessResult, TimeoutResult, current_job, job
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.jobs import echo, hang, nap, plain_square, square, wait_for_file
from tests.rough_jobs import hold_in_c, hold_loop, sleep_on

LONG = 60.0


@job(timeout=0.4)
async def hang_shortly() -> None:
    await hang()


ROWS: list[tuple[str, dict[str, Any], dict[str, Any], Any, str, float]] = [
    # what, the batch's options, the job's, the job, the clock that runs out, its length
    ("the job's own timeout", {"timeout": LONG}, {"timeout": 0.3}, hang_shortly, "running", 0.3),
    ("the batch's timeout", {"timeout": 0.3}, {}, hang_shortly, "running", 0.3),
    ("the function's timeout", {}, {}, hang_shortly, "running", 0.4),
    ("the batch's deadline", {"deadline": 1.0}, {}, hang, "batch", 1.0),
    ("the job's deadline", {}, {"deadline": 1.0}, hang, "deadline", 1.0),
    ("the job's deadline before the batch's", {"deadline": LONG}, {"deadline": 1.0}, hang, "deadline", 1.0),
    ("the batch's deadline before the job's", {"deadline": 1.0}, {"deadline": LONG}, hang, "batch", 1.0),
    ("the timeout before both deadlines", {"deadline": LONG}, {"deadline": 50, "timeout": 0.3}, hang, "running", 0.3),
    ("the job's silence", {"deadline": LONG}, {"heartbeat_timeout": 0.3, "deadline": 50}, hang, "heartbeat", 0.3),
    ("a deadline before the silence", {}, {"heartbeat_timeout": LONG, "deadline": 1.0}, hang, "deadline", 1.0),
]


@pytest.mark.parametrize(("what", "options", "own", "function", "phase", "limit"), ROWS, ids=[row[0] for row in ROWS])
async def test_the_clock_that_runs_out_first_stops_the_job_and_is_named(
    producer: Producer,
    worker: StartWorker,
    what: str,
    options: dict[str, Any],
    own: dict[str, Any],
    function: Any,
    phase: str,
    limit: float,
) -> None:
    async with worker():
        batch = await producer.submit([function.spec(**own)], **options)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.stopped) == (phase, limit, "cancelled")


@pytest.mark.parametrize(
    ("options", "own", "phase", "limit"),
    [
        ({"queue_timeout": 0.1}, {}, "queued", 0.1),
        ({"queue_timeout": LONG}, {"queue_timeout": 0.1}, "queued", 0.1),
        ({}, {"deadline": 0.1}, "deadline", 0.1),
        ({"queue_timeout": LONG, "deadline": LONG}, {"deadline": 0.1}, "deadline", 0.1),
    ],
)
async def test_a_clock_that_runs_out_in_the_queue_is_named(
    producer: Producer, worker: StartWorker, options: dict[str, Any], own: dict[str, Any], phase: str, limit: float
) -> None:
    async with worker(concurrency=1) as started:
        held = await producer.submit([nap.spec(0.5)])
        await until(lambda: started.crew.slots.used == 1)
        batch = await producer.submit([square.spec(2, **own)], **options)
        [result] = await batch.results()
        await held.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.stopped) == (phase, limit, "not started")


async def start_process(producer: Producer) -> None:
    """Let the worker start a process for plain functions: a busy machine takes seconds, and the deadline would run."""
    await (await producer.submit([plain_square.spec(1)])).results()


@pytest.mark.parametrize(
    ("spec", "stopped"),
    [(sleep_on.spec(LONG, deadline=2), "killed"), (hold_loop.spec(5.0, deadline=2), "interrupted")],
)
async def test_a_jobs_deadline_holds_however_it_runs(
    producer: Producer, worker: StartWorker, spec: JobSpec[Any], stopped: str
) -> None:
    async with worker():
        await start_process(producer)
        [result] = await (await producer.submit([spec])).results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.stopped) == ("deadline", 2, stopped)


@pytest.mark.redis
@pytest.mark.parametrize(
    ("options", "own", "phase"), [({"deadline": 1.5}, {}, "batch"), ({}, {"deadline": 1.5}, "deadline")]
)
async def test_a_job_that_is_killed_with_its_worker_names_its_clock_too(
    producer: Producer,
    worker_process: StartProcess,
    options: dict[str, Any],
    own: dict[str, Any],
    phase: str,
) -> None:
    worker_process("tests.rough_jobs", kill_floor=0.1)
    batch = await producer.submit([hold_in_c.spec(**own)], grace=0.5, **options)
    while not (await batch.status()).complete:  # noqa: ASYNC110  # nobody tells us, and a collector would close it
        await asyncio.sleep(0.02)
    [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.stopped) == (phase, 1.5, "killed")


@job
async def fail_each_time() -> None:
    raise ValueError(f"attempt {current_job().attempt}")


async def test_no_attempt_is_made_that_could_not_start_before_the_jobs_deadline(
    producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([fail_each_time.spec(deadline=5)], retries=3, backoff=100)
        [result] = await batch.results()
    assert isinstance(result, FailureResult)
    assert result.message == "attempt 1"


@job
async def fail_first_then_hang() -> None:
    if current_job().attempt == 1:
        raise ValueError("once")
    await hang()


async def test_a_jobs_deadline_is_for_all_its_attempts_together(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail_first_then_hang.spec(deadline=0.7)], retries=3, backoff=0.01, timeout=LONG)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.attempt) == ("deadline", 0.7, 2)


@job
async def tell_remaining() -> float:
    return current_job().remaining()


@job
def plain_tell_remaining() -> float:
    return current_job().remaining()


@pytest.mark.parametrize("function", [tell_remaining, plain_tell_remaining])
async def test_a_job_knows_what_remains_of_its_deadline(producer: Producer, worker: StartWorker, function: Any) -> None:
    async with worker():
        await start_process(producer)
        [result] = await (await producer.submit([function.spec(deadline=50, timeout=LONG)])).results()
    assert isinstance(result, SuccessResult)
    assert 0 < result.value < 51, "by Redis' clock, which is known to some milliseconds"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon"])
def test_a_deadline_that_cannot_be_is_refused_with_its_value(value: Any) -> None:
    with pytest.raises(OptionError, match=f"job 'square': deadline: .* got {value!r}"):
        square.spec(1, deadline=value)


async def test_each_job_of_a_chunk_has_its_own_wait(producer: Producer, worker: StartWorker, door: Path) -> None:
    waits = (LONG, 0.1, LONG, 0.2)
    async with worker(concurrency=1):
        first = await producer.submit([wait_for_file.spec(door)])
        await until_running(first, 1)
        batch = await producer.submit([echo.spec(wait, queue_timeout=wait) for wait in waits])
        await asyncio.sleep(0.3)  # what two of them do not wait for
        door.touch()
        assert [result.status for result in await batch.results()] == ["success", "timeout", "success", "timeout"]
