"""What a job can ask about its own end: `current_job().cancelling` and `remaining()`, wherever it runs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from protocol.settings import Settings
from straggler import current_job, embedded, job
from tests.conftest import PATIENCE
from tests.timeouts.rows import GRACE, LIMIT


@job
def look_from_a_process() -> tuple[str, str | None, int, bool, float, int]:
    """Tell what the job's own process knows of it."""
    me = current_job()
    return me.job_id, me.key, me.attempt, me.cancelling, me.remaining(), os.getpid()


async def test_a_job_is_cancelling_from_its_deadline_on() -> None:
    seen: list[Any] = []

    @job
    async def look() -> None:
        me = current_job()
        seen.append((me.cancelling, me.remaining() > 0))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append((me.cancelling, me.remaining() > 0))
            raise

    async with embedded(Settings()) as producer:
        batch = await producer.submit([look.spec()], timeout=LIMIT, grace=GRACE)
        [result] = await batch.results()
    assert result.status == "timeout"
    assert seen == [(False, True), (True, False)]


async def test_a_job_that_is_handed_back_is_cancelling_before_its_deadline() -> None:
    seen: list[Any] = []
    begun = asyncio.Event()

    @job
    async def look() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append((current_job().cancelling, current_job().remaining() > 50))
            raise

    async with embedded(Settings()) as producer:
        await producer.submit([look.spec()], timeout=60)
        await begun.wait()
    assert seen == [(True, True)]


async def test_a_cancellation_of_the_jobs_own_is_not_ours() -> None:
    seen: list[bool] = []

    @job
    async def look() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            seen.append(current_job().cancelling)
        return "done"

    async with embedded(Settings()) as producer:
        assert await (await producer.submit([look.spec()])).gather() == ["done"]
    assert seen == [False]


async def test_remaining_time_moves_with_the_deadline_while_another_job_blocks() -> None:
    @job
    async def look() -> float:
        me = current_job()
        before, at = me.remaining(), time.monotonic()
        while time.monotonic() - at < 0.5:  # for a stall, there is no event
            await asyncio.sleep(0.05)
        return time.monotonic() - at - (before - me.remaining())

    @job
    async def block() -> None:
        await asyncio.sleep(0.1)
        time.sleep(0.3)

    async with embedded(Settings()) as producer:
        moved, _ = await (await producer.submit([look.spec(), block.spec()], timeout=5)).gather()
    assert moved > 0.29


async def test_a_thread_is_told_to_stop_and_can_listen() -> None:
    stopped = threading.Event()

    @job(isolation="thread")
    def look() -> None:
        me = current_job()
        while not me.cancelling:
            time.sleep(0.005)
        stopped.set()

    async with embedded(Settings()) as producer:
        batch = await producer.submit([look.spec()], timeout=LIMIT)
        [result] = await batch.results()
        assert await asyncio.to_thread(stopped.wait, PATIENCE)
    assert (result.status, result.job_id) == ("timeout", f"{batch.id}:0")


async def test_a_process_knows_its_job() -> None:
    async with embedded(Settings()) as producer:
        batch = await producer.submit([look_from_a_process.spec(key="a")], timeout=70)
        [(job_id, key, attempt, cancelling, remaining, pid)] = await batch.gather()
    assert (job_id, key, attempt, cancelling) == (f"{batch.id}:0", "a", 1, False)
    assert 0 < remaining <= 70
    assert pid != os.getpid()


async def test_a_job_that_cleans_up_and_reraises_leaks_nothing() -> None:
    opened: list[str] = []

    @job
    async def work(number: int) -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        opened.append(f"{number}")
        try:
            await asyncio.shield(inner)
        finally:
            inner.cancel()
            await asyncio.wait({inner})
            opened.remove(f"{number}")

    async with embedded(Settings()) as producer:
        results: list[Any] = list(await (await producer.submit(work.map(range(50)), timeout=LIMIT, grace=5)).results())
    assert {(result.status, result.stopped) for result in results} == {("timeout", "cancelled")}
    assert not opened
    # That no task is left, `no_leaked_tasks` sees to.
