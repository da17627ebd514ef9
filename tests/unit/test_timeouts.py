"""What a run ends in: one test for each row of the order of precedence, and for each pair of rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.runs import (
    LIMIT,
    LONG,
    SLOW,
    WatchedRun,
    cancel,
    ended,
    hang,
    ignore_cancellation_until,
    outcome,
    raise_cancelled,
    raise_error,
    swallow,
    timed_out,
)
from workers.ending.outcomes import Cancelled, Raised, Returned, TimedOut
from workers.timeouts import Run
from workers.timing.deadlines import Deadlines

# ---- row 5: it returned


async def test_a_job_that_returns_in_time_ends_in_its_value() -> None:
    async def call() -> int:
        await asyncio.sleep(0)
        return 7

    run = await ended(call(), limit=LIMIT)
    assert run.outcome == Returned(7)
    assert 0 <= run.finished - run.started < LIMIT


# ---- row 4: it raised, whatever it raised


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no pickle of me")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        TimeoutError("the library's own"),
        asyncio.CancelledError("the job's own"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopAsyncIteration(),
        BaseExceptionGroup("many", [KeyboardInterrupt()]),
        UnpicklableError(),
        UnspeakableError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_job_raises_in_time_is_its_own_failure(error: BaseException) -> None:
    async def call() -> None:
        await asyncio.sleep(0)
        raise error

    found = await outcome(call())
    assert isinstance(found, Raised)
    assert found.error is error


async def test_a_job_that_cancels_itself_has_failed() -> None:
    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await hang()

    found = await outcome(call())
    assert isinstance(found, Raised)
    assert isinstance(found.error, asyncio.CancelledError)


async def test_a_timeout_that_a_job_sets_itself_is_its_own_failure() -> None:
    async def call() -> None:
        async with asyncio.timeout(0.001):
            await hang()

    found = await outcome(call())
    assert isinstance(found, Raised)
    assert isinstance(found.error, TimeoutError)


@pytest.mark.usefixtures("no_warnings_at_collection")
def test_a_loop_that_ends_under_a_job_leaves_no_complaint() -> None:
    async def leave() -> None:
        run = WatchedRun(hang())
        await run.begun.wait()
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(leave())
    loop.run_forever()
    loop.close()
    assert task.done()


# ---- row 3: our deadline passed


async def test_a_job_that_hangs_is_cancelled_at_its_deadline() -> None:
    run = await ended(hang(), limit=LIMIT)
    assert run.outcome == timed_out("cancelled")
    assert LIMIT <= run.finished - run.started < LIMIT + 0.25


@pytest.mark.parametrize("then", [lambda: "a value", raise_error, raise_cancelled])
async def test_what_comes_out_after_the_deadline_is_a_timeout_all_the_same(then: Callable[[], Any]) -> None:
    assert await outcome(swallow(then), limit=LIMIT) == timed_out("cancelled")


async def test_a_job_that_swallows_its_cancellation_and_awaits_again_is_a_timeout() -> None:
    async def call() -> str:
        await swallow(lambda: None)
        await asyncio.sleep(0.001)
        return "late"

    assert await outcome(call(), limit=LIMIT) == timed_out("cancelled")


@pytest.mark.parametrize("then", [lambda: "a value", raise_error])
async def test_a_job_that_blocks_past_its_deadline_and_ends_without_awaiting_is_late(then: Callable[[], Any]) -> None:
    async def call() -> Any:
        time.sleep(LIMIT * 1.5)
        return then()

    assert await outcome(call(), limit=LIMIT) == timed_out("late")


async def test_a_job_that_blocks_past_its_deadline_and_then_awaits_is_cancelled_there() -> None:
    async def call() -> None:
        time.sleep(LIMIT * 1.5)
        await asyncio.sleep(LONG)

    assert await outcome(call(), limit=LIMIT) == timed_out("cancelled")


async def test_a_timeout_names_the_clock_that_ran_out() -> None:
    run = await ended(hang(), limit=LIMIT, phase="batch")
    assert run.outcome == TimedOut(LIMIT, "batch", "cancelled")


# ---- cleanup and grace


async def test_cleanup_runs_to_its_end_within_grace() -> None:
    trace: list[str] = []

    class Resource:
        async def __aenter__(self) -> None:
            trace.append("opened")

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(0.01)
            trace.append("closed")

    async def commit() -> None:
        await asyncio.sleep(LIMIT * 2)
        trace.append("committed")

    async def call() -> None:
        section = asyncio.ensure_future(commit())
        try:
            async with Resource():
                await asyncio.shield(section)
        finally:
            await section
            trace.append("cleaned up")

    assert await outcome(call(), limit=LIMIT) == timed_out("cancelled")
    assert trace == ["opened", "closed", "committed", "cleaned up"]


async def test_a_job_that_ignores_its_cancellation_is_abandoned_after_grace() -> None:
    end = asyncio.Event()
    run = await ended(ignore_cancellation_until(end), limit=LIMIT, grace=LIMIT)
    assert run.outcome == timed_out("abandoned")
    assert 2 * LIMIT <= run.finished - run.started < 2 * LIMIT + SLOW
    assert run in run.deadlines.left_behind
    end.set()
    await run.task
    assert run.outcome == timed_out("abandoned"), "what comes out of an abandoned job changes nothing"
    assert run not in run.deadlines.left_behind


async def test_a_hanging_job_without_grace_is_over_at_its_deadline() -> None:
    run = await ended(hang(), limit=LIMIT, grace=0)
    assert isinstance(run.outcome, TimedOut)
    assert run.finished - run.started < LIMIT + SLOW


async def test_a_cancelled_job_that_ignores_it_is_left_behind_as_cancelled() -> None:
    end = asyncio.Event()
    run = await ended(ignore_cancellation_until(end), cancel, grace=LIMIT)
    assert run.outcome == Cancelled("enough")
    end.set()
    await run.task


# ---- one timer for many deadlines


async def test_each_of_many_runs_expires_at_its_own_deadline_whatever_their_order() -> None:
    limits = [0.06, 0.02, 0.04, LONG, 0.02]
    deadlines = Deadlines()
    runs = [Run(hang(), limit, LONG, deadlines) for limit in limits]
    done, _ = await asyncio.wait({run.task for run in runs[:3] + runs[4:]}, timeout=10)
    assert len(done) == 4
    for run in runs[:3] + runs[4:]:
        assert run.outcome == TimedOut(run.limit, "running", "cancelled")
        assert run.limit <= run.finished - run.started < run.limit + SLOW
    assert runs[3].outcome is None
    runs[3].cancel("enough")
    await asyncio.wait({runs[3].task})
    deadlines.close()


async def test_a_run_that_ends_leaves_the_clock_of_the_others_alone() -> None:
    deadlines = Deadlines()
    first, second = Run(asyncio.sleep(0), 0.01, LONG, deadlines), Run(hang(), 0.05, LONG, deadlines)
    await first.task
    await asyncio.wait({second.task}, timeout=10)
    assert (first.outcome, second.outcome) == (Returned(None), TimedOut(0.05, "running", "cancelled"))
