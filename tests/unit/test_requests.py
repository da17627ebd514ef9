"""A run that is asked to stop: a cancel wins over a shutdown, and both over whatever else happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.runs import (
    LIMIT,
    Meanwhile,
    WatchedRun,
    cancel,
    ended,
    hand_back,
    hang,
    outcome,
    raise_cancelled,
    raise_error,
    swallow,
)
from workers.ending.outcomes import Cancelled, HandedBack, Outcome, Returned
from workers.timeouts import Run

# ---- row 1: a cancel was requested; row 2: the worker is shutting down; each over all below


@pytest.mark.parametrize("then", [lambda: "a value", raise_error, raise_cancelled])
@pytest.mark.parametrize(("meanwhile", "expected"), [(cancel, Cancelled("enough")), (hand_back, HandedBack())])
async def test_a_request_wins_over_what_comes_out(
    meanwhile: Meanwhile, expected: Outcome, then: Callable[[], Any]
) -> None:
    assert await outcome(swallow(then), meanwhile) == expected


@pytest.mark.parametrize(("ask", "expected"), [(cancel, Cancelled("enough")), (hand_back, HandedBack())])
async def test_a_request_wins_over_a_deadline_that_passed_before_it(ask: Meanwhile, expected: Outcome) -> None:
    cleaning = asyncio.Event()

    async def call() -> None:
        try:
            await hang()
        finally:
            cleaning.set()
            await asyncio.sleep(0.01)

    async def meanwhile(run: Run) -> None:
        await cleaning.wait()
        await ask(run)

    assert await outcome(call(), meanwhile, limit=LIMIT) == expected


@pytest.mark.parametrize(("ask", "expected"), [(cancel, Cancelled("enough")), (hand_back, HandedBack())])
async def test_a_request_wins_over_a_deadline_that_passes_after_it(ask: Meanwhile, expected: Outcome) -> None:
    async def call() -> None:
        try:
            await hang()
        finally:
            await asyncio.sleep(LIMIT * 2)

    assert await outcome(call(), ask, limit=LIMIT) == expected


async def test_a_cancel_wins_over_a_shutdown_in_either_order() -> None:
    async def cancel_first(run: Run) -> None:
        run.cancel("enough")
        run.hand_back()

    async def cancel_last(run: Run) -> None:
        run.hand_back()
        run.cancel("enough")

    assert await outcome(hang(), cancel_first) == Cancelled("enough")
    assert await outcome(hang(), cancel_last) == Cancelled("enough")


async def test_the_first_reason_of_a_cancel_stands() -> None:
    async def twice(run: Run) -> None:
        run.cancel("first")
        run.cancel("second")

    assert await outcome(hang(), twice) == Cancelled("first")


async def test_a_request_after_the_end_changes_nothing() -> None:
    run = await ended(asyncio.sleep(0, "done"))
    run.cancel("too late")
    run.hand_back()
    assert run.outcome == Returned("done")


@pytest.mark.usefixtures("no_warnings_at_collection")
@pytest.mark.parametrize("ask", [cancel, hand_back])
async def test_a_job_that_is_stopped_before_its_first_step_never_starts(ask: Meanwhile) -> None:
    run = WatchedRun(hang(), LIMIT)
    await ask(run)
    await asyncio.wait({run.task})
    assert run.outcome in (Cancelled("enough"), HandedBack())
    assert run.ends == [run.outcome]
    assert not run.begun.is_set()


async def test_the_end_is_told_once_and_the_clock_stops() -> None:
    run = await ended(asyncio.sleep(0, "done"), limit=LIMIT, grace=LIMIT)
    await asyncio.sleep(LIMIT * 3)  # both clocks would have run out by now
    assert run.ends == [Returned("done")]


async def test_the_limit_counts_from_the_first_step_not_from_the_wait_for_the_loop() -> None:
    run = WatchedRun(asyncio.sleep(0, "in time"), LIMIT)
    time.sleep(LIMIT * 2)
    await run.over.wait()
    assert run.outcome == Returned("in time")
    assert run.deadline == pytest.approx(run.started + LIMIT)
