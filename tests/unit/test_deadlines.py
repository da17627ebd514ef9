"""One timer for all clocks, in the order of their times; who holds the loop is known, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from tests.conftest import until
from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import CURRENT, LAST_MOMENT, LIMIT, NOBODY, SINCE, STARTED


class Clocked:
    """A run, as its clocks see it."""

    def __init__(self, name: str, when: float, rung: list[str] | None = None) -> None:
        self.name = name
        self.fields = {"job": name}
        self.when = self.last_moment = time.monotonic() + when
        self.started = time.monotonic()
        self.limit = when
        self.number = 7.0
        self.call: Any = None
        self.rung = rung if rung is not None else []
        self.postponed = 0.0

    def ring(self) -> None:
        self.rung.append(self.name)

    def postpone(self, seconds: float) -> None:
        self.postponed += seconds
        self.when += seconds


def timers() -> int:
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return sum("Deadlines" in repr(handle) and not handle.cancelled() for handle in scheduled)


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_runs_ring_in_the_order_of_their_times_whatever_the_order_they_came_in() -> None:
    deadlines, rung = Deadlines(), list[str]()
    runs = [Clocked(name, when, rung) for name, when in (("b", 0.04), ("a", 0.02), ("d", 0.08), ("c", 0.06))]
    for run in runs:
        deadlines.watch(run)
    await until(lambda: len(rung) == 4)
    assert rung == [run.name for run in sorted(runs, key=lambda run: run.when)]


async def test_no_run_rings_before_its_time() -> None:
    deadlines = Deadlines()
    run = Clocked("a", 0.05)
    deadlines.watch(Clocked("earlier", 0.01))
    deadlines.watch(run)
    await until(lambda: run.rung)
    assert time.monotonic() >= run.when


async def test_many_runs_need_one_timer() -> None:
    deadlines = Deadlines()
    for number in range(1000):
        deadlines.watch(Clocked("a", 60 + number % 7))
    assert timers() == 1
    deadlines.close()
    assert timers() == 0


async def test_a_run_that_was_forgotten_never_rings_and_the_next_does() -> None:
    deadlines = Deadlines()
    gone, next_one = Clocked("gone", 0.01), Clocked("next", 0.03)
    deadlines.watch(gone)
    deadlines.watch(next_one)
    deadlines.forget(gone)
    deadlines.forget(gone)
    await until(lambda: next_one.rung)
    assert not gone.rung
    assert timers() == 0


async def test_a_run_may_set_a_new_time_while_it_rings() -> None:
    deadlines = Deadlines()

    class Again(Clocked):
        def ring(self) -> None:
            super().ring()
            if len(self.rung) < 3:
                self.when = time.monotonic() + 0.01
                deadlines.watch(self)

    run, other = Again("again", 0.01), Clocked("other", 0.05)
    deadlines.watch(run)
    deadlines.watch(other)
    await until(lambda: other.rung and len(run.rung) == 3)
    assert timers() == 0


async def test_each_new_earliest_time_is_told_to_who_interrupts() -> None:
    deadlines, told = Deadlines(), list[float]()
    deadlines.on_set = told.append
    late, early, later = Clocked("late", 300), Clocked("early", 0.02), Clocked("later", 600)
    for run in (late, early, later):
        deadlines.watch(run)
    assert told == [late.when, early.when]
    assert deadlines.earliest == early.when
    await until(lambda: early.rung)
    assert told == [late.when, early.when, late.when]
    deadlines.close()
    assert deadlines.earliest == float("inf")


async def test_a_stall_moves_the_neighbours_clocks_and_not_the_culprits() -> None:
    deadlines = Deadlines()
    culprit, neighbour = Clocked("culprit", 30), Clocked("neighbour", 0.05)
    for run in (culprit, neighbour):
        deadlines.watch(run)
    due = neighbour.when
    deadlines.enter(culprit)
    block(0.1)
    deadlines.leave(culprit)
    assert culprit.postponed == 0
    assert 0.1 <= neighbour.postponed < 5
    await until(lambda: neighbour.rung)
    assert time.monotonic() >= due + 0.1
    deadlines.close()


async def test_an_ordinary_step_moves_no_clocks() -> None:
    deadlines = Deadlines()
    one, other = Clocked("one", 30), Clocked("other", 30)
    deadlines.watch(other)
    # A machine that is busy may make any one step a long one.
    for _ in range(50):
        deadlines.enter(one)
        deadlines.leave(one)
        if not other.postponed:
            break
    assert other.postponed == 0
    deadlines.close()


async def test_a_long_stall_is_logged_with_its_jobs_name(caplog: pytest.LogCaptureFixture) -> None:
    deadlines = Deadlines()
    run = Clocked("job b:3 crunch", 30)
    for since, records in ((0.5, 0), (5.0, 1)):
        deadlines.enter(run)
        deadlines._since -= since
        deadlines.leave(run)
        stalls = [record for record in caplog.records if getattr(record, "event", "") == "loop.stalled"]
        assert len(stalls) == records
    assert "job b:3 crunch blocked the event loop for 5." in stalls[0].getMessage()
    assert stalls[0].levelno == logging.WARNING


def test_who_holds_the_loop_stands_in_the_cells() -> None:
    deadlines = Deadlines()
    run = Clocked("a", 9)
    before = time.monotonic()
    deadlines.enter(run)
    cells = deadlines.cells
    assert deadlines.current is run
    assert (cells[CURRENT], cells[LAST_MOMENT], cells[STARTED], cells[LIMIT]) == (
        7.0, run.last_moment, run.started, run.limit,
    )  # fmt: skip
    assert before <= cells[SINCE] <= time.monotonic()
    deadlines.leave(run)
    assert deadlines.current is None
    assert cells[CURRENT] == NOBODY
