"""The heart: it tells its supervisor that the loop turns, how far it lags, and when the worker must go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.conftest import until
from tests.unit.test_deadlines import Clocked
from workers.timing.deadlines import Deadlines
from workers.vitals import heart as heart_module
from workers.vitals.heart import Heart
from workers.vitals.pulse import SUPERVISOR, TICK


@asynccontextmanager
async def beating(
    deadlines: Deadlines, exhausted: Callable[[], None] = lambda: None, orphaned: Callable[[], None] = lambda: None
) -> AsyncIterator[Heart]:
    heart = Heart(deadlines, 2, exhausted, orphaned, on_beat=lambda: None)
    heart.start()
    try:
        yield heart
    finally:
        heart.stop()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart_module, "INTERVAL", 0.005)


async def test_it_ticks_while_the_loop_turns_and_not_while_it_stands() -> None:
    deadlines = Deadlines()
    async with beating(deadlines):
        await until(lambda: deadlines.cells[TICK] > 0)
        first = deadlines.cells[TICK]
        time.sleep(0.05)  # the loop stands still
        assert deadlines.cells[TICK] == first
        await until(lambda: deadlines.cells[TICK] >= first + 0.05)


async def test_it_tells_the_worst_lag_once() -> None:
    async with beating(Deadlines()) as heart:
        await asyncio.sleep(0)
        time.sleep(0.1)  # the loop stands still
        await asyncio.sleep(0.02)
        assert heart.take_lag() >= 0.09
        assert heart.take_lag() == 0


async def test_more_left_behind_than_allowed_is_told_and_no_more_is_borne() -> None:
    deadlines = Deadlines()
    told: list[int] = []
    async with beating(deadlines, exhausted=lambda: told.append(len(deadlines.left_behind))):
        deadlines.left_behind |= {1, 2}
        tick = deadlines.cells[TICK]
        await until(lambda: deadlines.cells[TICK] > tick)
        assert not told
        deadlines.left_behind.add(3)
        await until(lambda: told)
    assert set(told) == {3}


async def test_clocks_move_where_the_process_stood_still_and_not_twice_where_a_job_held_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heart_module, "_STANDSTILL", 0.05)
    deadlines = Deadlines()
    run, culprit = Clocked("a", 60.0), Clocked("b", 60.0)
    deadlines.watch(run)
    async with beating(deadlines) as heart:
        await asyncio.sleep(0)
        time.sleep(0.3)  # in no job's step
        await until(lambda: heart.take_lag() > 0.2)
        assert run.postponed > 0.25
        deadlines.enter(culprit)
        time.sleep(0.1)
        deadlines.leave(culprit)
        assert deadlines.held > 0.09
        await until(lambda: heart.take_lag() > 0.09)
        before = run.postponed
        deadlines.held += 100.0  # more than any machine adds
        time.sleep(0.1)
        await until(lambda: heart.take_lag() > 0.09)
        assert run.postponed == before


async def test_a_supervisor_that_was_gone_before_the_first_beat_is_missed() -> None:
    deadlines = Deadlines()
    deadlines.cells[SUPERVISOR] = os.getpid()  # not our parent
    told: list[bool] = []
    async with beating(deadlines, orphaned=lambda: told.append(True)):
        await until(lambda: told)


async def test_its_own_parent_is_not_missed() -> None:
    for supervisor in (0, os.getppid()):
        deadlines = Deadlines()
        deadlines.cells[SUPERVISOR] = supervisor
        told: list[bool] = []
        async with beating(deadlines, orphaned=lambda told=told: told.append(True)):  # type: ignore[misc]
            await until(lambda deadlines=deadlines: deadlines.cells[TICK] > 0)  # type: ignore[misc]
        assert not told


def test_a_process_whose_supervisor_ends_notices() -> None:
    code = """
import asyncio, os, sys
from workers.timing.deadlines import Deadlines
from workers.vitals.heart import Heart
from workers.vitals.pulse import SUPERVISOR
async def main():
    orphaned = asyncio.Event()
    deadlines = Deadlines()
    deadlines.cells[SUPERVISOR] = os.getppid()
    heart = Heart(deadlines, 1, lambda: None, orphaned.set, lambda: None)
    heart.start()
    print("ready", file=sys.stderr, flush=True)
    await asyncio.wait_for(orphaned.wait(), 10)
    print("orphaned", flush=True)
    heart.stop()
asyncio.run(main())
"""
    parent = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stderr=subprocess.PIPE)
child.stderr.readline()  # it is to see its parent first
"""
    # The child has inherited the pipe: `run` returns when it, too, has ended.
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines() == ["orphaned"]
