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


async def test_clocks_move_by_what_the_process_stood_still_and_by_nothing_that_used_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    run = Clocked("a", 60.0)
    deadlines.watch(run)
    monkeypatch.setattr(loop, "stood_still", 7.0, raising=False)  # before it began to beat
    async with beating(deadlines) as heart:
        monkeypatch.setattr(loop, "stood_still", 12.0)
        await until(lambda: run.postponed)
        assert 4.0 < run.postponed <= 5.0
        before, cpu_time = run.postponed, time.process_time()
        monkeypatch.setattr(time, "process_time", lambda: cpu_time + 100.0)
        monkeypatch.setattr(loop, "stood_still", 17.0)
        await until(lambda: heart._stood_still == 17.0)
        assert run.postponed == before


async def test_what_a_beat_is_late_by_moves_no_clocks_as_a_callback_of_a_job_may_have_held_the_loop() -> None:
    deadlines = Deadlines()
    run = Clocked("a", 60.0)
    deadlines.watch(run)
    async with beating(deadlines) as heart:
        await asyncio.sleep(0)
        time.sleep(1.2)
        await until(lambda: heart.take_lag() > 1.0)
    assert run.postponed == 0


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
