"""Workers come and go in the middle of a batch: deploys, hosts that lose power, hosts that stand still for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from protocol.jobs import JobSpec
from tests.conftest import PATIENCE, StartProcess, until, until_running
from tests.jobs import append_and_wait, append_line

pytestmark = pytest.mark.redis

# What a machine that is busy with other things may add, s.
SLOW = 30.0


def runs_of(path: Path) -> list[list[str]]:
    """Tell each run: process id, attempt, and whose it was."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_rolling_restart_of_all_workers_loses_no_job_and_burns_no_attempt(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace, going_on = tmp_path / "trace", asyncio.Event()
    going_on.set()

    async def stream() -> AsyncIterator[JobSpec[Any]]:
        number = 0
        while going_on.is_set():
            for _ in range(20):
                # Some outlast `shutdown_wait`, so they are handed back.
                yield append_line.spec(trace, str(number), 3.0 if number % 10 == 0 else 0.05)
                number += 1
            await asyncio.sleep(0.1)

    options = {"concurrency": 16, "shutdown_wait": 0.3}
    running = [await asyncio.to_thread(worker_process, **options) for _ in range(2)]
    submitting = asyncio.create_task(producer.submit(stream()))
    await until(lambda: len(runs_of(trace)) > 20)
    for place, old in enumerate(running):
        busy = len(runs_of(trace))
        old.terminate()
        assert await asyncio.to_thread(old.wait) == 0
        running[place] = await asyncio.to_thread(worker_process, **options)
        await until(lambda busy=busy: len(runs_of(trace)) > busy + 20)  # type: ignore[misc]
    going_on.clear()
    batch = await submitting
    results = await batch.results()
    assert {(result.status, result.attempt) for result in results} == {("success", 1)}
    assert {attempt for _, attempt, _ in runs_of(trace)} == {"1"}
    assert {int(number) for _, _, number in runs_of(trace)} == set(range((await batch.status()).total))
    assert len(runs_of(trace)) > len(results), "some were handed back in the middle"
    assert len({result.worker for result in results}) > 2


async def test_with_the_defaults_a_dead_hosts_jobs_run_elsewhere_within_12_s(
    producer: Producer, worker_process: StartProcess, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    host = worker_process(concurrency=2)
    batch = await producer.submit(
        [append_line.spec(trace, "done"), append_line.spec(trace, "cut", 3600.0)], timeout=7200
    )
    await until_running(batch, 1)
    await until(lambda: len(runs_of(trace)) == 2)
    while not (await batch.status()).success:  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
    other = worker_process(concurrency=2)
    host.kill()  # and its worker with it: nobody is left to hand anything back
    killed_at = time.monotonic()
    await until(lambda: len(runs_of(trace)) == 3)
    assert time.monotonic() - killed_at < 12 + SLOW
    assert [line for _, _, line in runs_of(trace)].count("done") == 1, "what has its result does not run again"
    other.terminate()
    assert await asyncio.to_thread(other.wait) == 0


async def test_a_worker_that_stood_still_for_longer_than_its_lease_stops_what_others_run_by_then(
    producer: Producer, worker_process: StartProcess, tmp_path: Path, door: Path
) -> None:
    trace = tmp_path / "trace"
    first = worker_process(lease=1, concurrency=2)
    batch = await producer.submit([append_and_wait.spec(trace, "here", door)], timeout=60)
    await until(lambda: runs_of(trace))  # what it had not heard of when it stood still it would not lose, but leave
    [worker_id] = await producer.workers()
    pid = int(worker_id.split("-")[-2])
    os.kill(pid, signal.SIGSTOP)
    try:
        worker_process(lease=1, concurrency=2)
        async with asyncio.timeout(PATIENCE):
            # The other has it, once the first is missed.
            while await producer.redis.get(f"arq:in-progress:{batch.id}:0") in (None, worker_id.encode()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(first.wait_for_output, "was lost: its jobs stop here")
    door.touch()
    [result] = await batch.results()
    assert (result.status, result.attempt) == ("success", 1), "a pause is no crash"
    assert result.worker != worker_id
    assert first.process.poll() is None
    assert first.output.count("takes jobs from") == 1, "it lives"
