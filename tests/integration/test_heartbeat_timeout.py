"""`heartbeat_timeout`: a job that promised heartbeats and fell silent is stopped before its time, wherever it runs."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol.errors import OptionError
from protocol.jobs import JobSpec
from straggler import CancelledResult, FailureResult, SuccessResult, TimeoutResult, current_job, job
from tests.conftest import StartProcess, StartWorker, until, until_running
from tests.jobs import nap, square

SILENCE = 0.4
LONG = 60.0


def beat_for(seconds: float, pause: float, sleep: Any = time.sleep) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        current_job().heartbeat()
        sleep(pause)


@job
async def beat(seconds: float, then: float = 0.0) -> str:
    """Beat for this long, then be silent for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        current_job().heartbeat()
        await asyncio.sleep(SILENCE / 10)
    await asyncio.sleep(then)
    return "done"


@job
async def beat_blocking(seconds: float, then: float = 0.0) -> str:
    """Do the same, and hold the event loop all the time."""
    beat_for(seconds, SILENCE / 10)
    time.sleep(then)
    return "done"


@job
def beat_plainly(seconds: float, then: float = 0.0) -> str:
    beat_for(seconds, SILENCE / 10)
    time.sleep(then)
    return "done"


@job(isolation="thread")
def beat_in_thread(seconds: float, then: float = 0.0) -> str:
    beat_for(seconds, SILENCE / 10)
    end = time.monotonic() + then
    while time.monotonic() < end and not current_job().cancelling:
        time.sleep(0.01)
    return "done"


@job
async def beat_then_hold_in_c(seconds: float, then: float = 0.0) -> str:
    """Hold the loop in code that checks for no signals."""
    beat_for(seconds, SILENCE / 10)
    if then:
        sum(itertools.repeat(1, 10**12))
    return "done"


@job
async def beat_then_swallow(seconds: float, then: float = 0.0) -> None:
    """Fall silent, and ignore the cancellation."""
    await beat(seconds)
    end = time.monotonic() + then
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


KINDS = [(beat, "cancelled"), (beat_blocking, "interrupted"), (beat_plainly, "killed"), (beat_in_thread, "abandoned")]


@pytest.mark.parametrize(("function", "stopped"), [*KINDS, (beat_then_swallow, "abandoned")])
async def test_a_job_that_falls_silent_is_stopped(
    producer: Producer, worker: StartWorker, function: Any, stopped: str
) -> None:
    async with worker() as started:
        batch = await producer.submit([function.spec(0.0, 1.5)], heartbeat_timeout=SILENCE, timeout=LONG, grace=0.1)
        [result] = await batch.results()
        await until(lambda: not started.crew.deadlines.left_behind)
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit, result.stopped) == ("heartbeat", SILENCE, stopped)
    assert result.duration is not None
    assert result.duration + 0.001 >= SILENCE


@pytest.mark.parametrize(("function", "stopped"), KINDS)
async def test_a_job_that_beats_runs_longer_than_it_may_be_silent(
    producer: Producer, worker: StartWorker, function: Any, stopped: str
) -> None:
    async with worker():
        batch = await producer.submit([function.spec(3 * SILENCE)], heartbeat_timeout=SILENCE, timeout=LONG)
        [result] = await batch.results()
    assert isinstance(result, SuccessResult), result


@pytest.mark.parametrize(("function", "stopped"), KINDS)
async def test_silence_is_counted_from_the_last_heartbeat(
    producer: Producer, worker: StartWorker, function: Any, stopped: str
) -> None:
    async with worker():
        batch = await producer.submit([function.spec(2 * SILENCE, LONG)], heartbeat_timeout=SILENCE, timeout=LONG)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.stopped) == ("heartbeat", stopped)
    assert result.duration is not None
    assert result.duration > 2.5 * SILENCE


@pytest.mark.redis
async def test_a_silent_job_that_nothing_interrupts_has_its_worker_process_killed(
    producer: Producer, worker_process: StartProcess
) -> None:
    worker_process("tests.integration.test_heartbeat_timeout", kill_floor=0.1)
    batch = await producer.submit(
        [beat_then_hold_in_c.spec(2 * SILENCE, LONG), nap.spec(0.1)], heartbeat_timeout=SILENCE, timeout=LONG, grace=0.1
    )
    results = await batch.results()
    assert isinstance(results[0], TimeoutResult)
    assert (results[0].phase, results[0].limit, results[0].stopped) == ("heartbeat", SILENCE, "killed")


@pytest.mark.redis
async def test_a_job_that_holds_the_loop_and_beats_keeps_its_worker_process(
    producer: Producer, worker_process: StartProcess
) -> None:
    worker_process("tests.integration.test_heartbeat_timeout", kill_floor=0.1)
    batch = await producer.submit(
        [beat_then_hold_in_c.spec(4 * SILENCE)], heartbeat_timeout=SILENCE, timeout=LONG, grace=0
    )
    [result] = await batch.results()
    assert isinstance(result, SuccessResult), result


async def test_the_timeout_holds_for_a_job_that_beats(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([beat.spec(LONG)], heartbeat_timeout=SILENCE, timeout=2 * SILENCE)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit) == ("running", 2 * SILENCE)


async def test_a_shorter_timeout_comes_before_the_silence(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([beat.spec(0.0, LONG)], heartbeat_timeout=LONG, timeout=0.2)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit) == ("running", 0.2)


@job(heartbeat_timeout=SILENCE)
async def promised(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("options", "own", "expected"),
    [
        ({}, {}, SILENCE),
        ({"heartbeat_timeout": 0.2}, {}, 0.2),
        ({"heartbeat_timeout": LONG}, {"heartbeat_timeout": 0.3}, 0.3),
    ],
)
async def test_a_jobs_own_wins_over_the_batchs_and_that_over_the_functions(
    producer: Producer, worker: StartWorker, options: dict[str, Any], own: dict[str, Any], expected: float
) -> None:
    async with worker():
        batch: Any = await producer.submit([promised.spec(30.0, **own)], **options)
        [result] = await batch.results()
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.limit) == ("heartbeat", expected)


@job
async def fall_silent_once() -> int:
    attempt = current_job().attempt
    if attempt == 1:
        await asyncio.sleep(LONG)
    return attempt


async def test_a_silent_job_runs_again_where_timeouts_are_tried_again(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(
            [fall_silent_once.spec()], heartbeat_timeout=SILENCE, retries=1, retry_on=("timeout",), backoff=0.01
        )
        [result] = await batch.results()
    assert isinstance(result, SuccessResult)
    assert (result.value, result.attempt) == (2, 2)


async def test_a_silent_job_may_be_cancelled_and_fail_like_any_other(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch: Any = await producer.submit(
            [beat.spec(LONG), JobSpec(function="fail", args=("no",))], heartbeat_timeout=SILENCE
        )
        await batch.wait(among=[1])
        await batch.cancel(reason="enough")
        first, second = await batch.results()
    assert isinstance(first, CancelledResult)
    assert isinstance(second, FailureResult)


@job
async def beat_after_turns(seconds: float) -> str:
    """Beat only some turns of the loop after each wait, as who waits for an answer does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(SILENCE / 4)
        for _ in range(5):
            await asyncio.sleep(0)
        current_job().heartbeat()
    return "done"


async def test_who_is_kept_from_the_loop_by_another_is_not_silent(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch: Any = await producer.submit([beat_after_turns.spec(2.0)], heartbeat_timeout=SILENCE, timeout=LONG)
        await until_running(batch, 1)
        other = await producer.submit([beat_blocking.spec(0.0, 3 * SILENCE)], timeout=LONG)
        [result] = await batch.results()
        assert isinstance(result, SuccessResult), result
        assert (await other.results())[0].status == "success"


async def test_a_silence_that_ends_with_the_job_is_none(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([beat.spec(0.0, SILENCE / 2)], heartbeat_timeout=SILENCE)
        assert [result.status for result in await batch.results()] == ["success"]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
async def test_a_time_that_cannot_be_is_refused_everywhere(producer: Producer, value: float) -> None:
    with pytest.raises(OptionError, match="heartbeat_timeout"):
        await producer.submit([square.spec(1)], heartbeat_timeout=value)
    with pytest.raises(OptionError, match="heartbeat_timeout"):
        square.spec(1, heartbeat_timeout=value)
    with pytest.raises(OptionError, match="heartbeat_timeout"):
        job(heartbeat_timeout=value)(square.function)


async def test_arguments_named_so_are_given_by_a_job_spec(producer: Producer, worker: StartWorker, door: Path) -> None:
    spec = square.spec(2, heartbeat_timeout=5, deadline=9)
    assert (spec.heartbeat_timeout, spec.deadline, spec.kwargs) == (5, 9, {})


async def test_many_silent_jobs_are_stopped_beside_many_that_beat(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        specs = [beat.spec(0.0, LONG) if number % 2 else beat.spec(3 * SILENCE) for number in range(40)]
        results = await (await producer.submit(specs, heartbeat_timeout=SILENCE, timeout=LONG)).results()
    assert [result.status for result in results] == ["success", "timeout"] * 20
    assert {result.stopped for result in results if isinstance(result, TimeoutResult)} == {"cancelled"}


async def test_the_import_of_a_plain_jobs_module_is_no_silence(
    producer: Producer, worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "slow_to_import.py"
    module.write_text(
        "import os, time\nfrom straggler import job\n"
        "if 'SLOW' in os.environ:\n    time.sleep(1.0)\n"
        "@job\ndef imported_slowly(seconds: float) -> str:\n    time.sleep(seconds)\n    return 'done'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    function = importlib.import_module("slow_to_import").imported_slowly
    monkeypatch.setenv("SLOW", "1")
    async with worker(job_processes=1):
        batch: Any = await producer.submit([function.spec(0.0), function.spec(LONG)], heartbeat_timeout=SILENCE)
        first, second = await batch.results()
    assert first.status == "success"
    assert isinstance(second, TimeoutResult)
    assert (second.phase, second.stopped) == ("heartbeat", "killed")
