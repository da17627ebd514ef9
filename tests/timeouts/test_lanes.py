"""Jobs that end without awaiting share a task; no job can tell, and none can harm the one after it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from protocol.settings import Settings
from straggler import current_job, embedded, job

seen: dict[int, Any] = {}
setting: ContextVar[int] = ContextVar("setting", default=-1)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


async def run(jobs: Any, **options: Any) -> list[Any]:
    """Run jobs that travel together in a worker of this process; returns their results, in order."""
    async with embedded(Settings()) as producer:
        batch = await producer.submit(jobs, **options)
        return list(await batch.results())


@job
async def see_task(number: int) -> int:
    seen[number] = asyncio.current_task()
    return number


@job
async def await_every_third(number: int) -> int:
    seen[number] = asyncio.current_task()
    if number % 3 == 0:
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is seen[number]
    return number


async def test_jobs_that_end_at_once_follow_each_other_in_one_task() -> None:
    results = await run(see_task.map(range(100)))
    assert [result.unwrap() for result in results] == list(range(100))
    assert len(set(seen.values())) < 20


async def test_a_job_that_awaits_keeps_its_task_for_itself_from_there_on() -> None:
    results = await run(await_every_third.map(range(99)))
    assert [result.unwrap() for result in results] == list(range(99))
    tasks = [seen[number] for number in range(0, 99, 3)]
    assert len(set(tasks)) == len(tasks)


async def test_each_job_has_a_context_of_its_own() -> None:
    @job
    async def set_and_see(number: int) -> list[int]:
        before = setting.get()
        setting.set(number)
        return [before, current_job().index]

    results = await run(set_and_see.map(range(50)))
    assert [result.unwrap() for result in results] == [[-1, number] for number in range(50)]


@job
async def see_setting(number: int) -> int:
    before = setting.get()
    setting.set(number)
    if number == 0:  # its slot is free when its grace is over, and its task goes on
        with suppress(asyncio.CancelledError):
            await seen[0].wait()
        await seen[0].wait()
    await asyncio.sleep(0.001)
    return before


async def test_a_job_that_starts_as_another_ends_or_is_left_behind_has_the_context_of_its_chunk() -> None:
    seen[0] = asyncio.Event()
    setting.set(-7)
    async with embedded(Settings(concurrency=1)) as producer:
        batch = await producer.submit(see_setting.map(range(20)), timeout=1, grace=0.05)
        results = list(await batch.results())
        seen[0].set()
    assert getattr(results[0], "stopped", None) == "abandoned"
    assert [result.unwrap() for result in results[1:]] == [-7] * 19


async def test_jobs_behind_one_that_awaits_go_on_in_another_task_at_once() -> None:
    @job
    async def hang_every_tenth(number: int) -> int:
        seen[number] = asyncio.current_task()
        if number % 10 == 0:
            await asyncio.Event().wait()
        return number

    results = await run(hang_every_tenth.map(range(100)), timeout=1)
    assert [result.status for result in results] == (["timeout"] + ["success"] * 9) * 10
    assert len({seen[number] for number in range(0, 100, 10)}) == 10
    assert len(set(seen.values())) <= 12


async def test_a_job_that_cancels_itself_and_returns_harms_no_other() -> None:
    @job
    async def cancel_self(number: int) -> int:
        if number == 5:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if number > 5:
            await asyncio.sleep(0)
        return number

    results = await run(cancel_self.map(range(20)))
    assert [result.status for result in results] == ["success"] * 20


async def test_a_cancel_that_was_taken_back_does_not_come_out_in_the_next_job() -> None:
    @job
    async def cancel_and_think_better(number: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        if number == 5:
            task.cancel()
            task.uncancel()
        if number > 5:
            await asyncio.sleep(0)
        return number

    results = await run(cancel_and_think_better.map(range(20)))
    assert [result.status for result in results] == ["success"] * 20


async def test_what_an_ended_job_has_left_behind_cannot_cancel_the_next_one() -> None:
    @job
    async def leave_a_bomb(number: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        seen[number] = task
        if number == 0:
            asyncio.get_running_loop().call_later(0.02, task.cancel)
        elif number == 1:
            await asyncio.sleep(0.1)
        return number

    results = await run(leave_a_bomb.map(range(4)))
    assert [result.status for result in results] == ["success"] * 4
    assert seen[0] is seen[1]


async def test_a_timeout_of_a_jobs_own_and_its_tasks_work_in_a_shared_task() -> None:
    @job
    async def use_both(number: int) -> str:
        if number % 2 == 0:
            return "at once"
        try:
            async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
        except TimeoutError:
            return "timed out"
        return "never"

    results = await run(use_both.map(range(20)))
    assert [result.unwrap() for result in results] == ["at once", "timed out"] * 10


async def test_failures_and_successes_share_a_task_too() -> None:
    @job
    async def fail_sometimes(number: int) -> int:
        if number % 7 == 3:
            raise ValueError(number)
        if number % 7 == 4:
            raise SystemExit(number)
        return number

    results = await run(fail_sometimes.map(range(70)))
    statuses = ["failure" if number % 7 in (3, 4) else "success" for number in range(70)]
    assert [result.status for result in results] == statuses


async def test_a_job_that_blocks_in_its_first_step_is_interrupted_and_no_other() -> None:
    @job
    async def block_once(number: int) -> int:
        while number == 3:
            pass
        return number

    results = await run(block_once.map(range(10)), timeout=0.2)
    assert [result.status for result in results] == ["success"] * 3 + ["timeout"] + ["success"] * 6
    assert results[3].stopped == "interrupted"


async def test_others_have_their_turn_while_jobs_follow_each_other() -> None:
    @job
    async def take_a_millisecond(number: int) -> int:
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass
        return number

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    try:
        results = await run(take_a_millisecond.map(range(100)))
    finally:
        counting.cancel()
    assert len(results) == 100
    assert turns > 15, "a lane gives the loop a turn every 5 ms"


async def test_jobs_of_several_kinds_in_one_chunk_end_as_they_would_alone() -> None:
    specs = [
        *see_task.map(range(3)),
        see_task.spec(3, key="three"),
        see_task.spec(4, timeout=5),
        await_every_third.spec(9),
        *see_task.map(range(5, 8)),
    ]
    results = await run(specs)
    assert [result.unwrap() for result in results] == [0, 1, 2, 3, 4, 9, 5, 6, 7]
    assert [result.key for result in results] == [None] * 3 + ["three"] + [None] * 5
