"""The supervisor's own judgement, with programs in place of workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, until
from workers import supervisor as module
from workers.supervisor import Child, Supervisor
from workers.vitals.aftermath import Aftermath, Death
from workers.vitals.pulse import CURRENT, LAST_MOMENT, SINCE, TICK, Pulse, job_number


class Ledger(Aftermath):
    """An aftermath that only takes notes."""

    def __init__(self) -> None:
        self.lease = 10.0
        self.notes: list[tuple[list[str], Death]] = []

    async def settle(self, pulse: Pulse, death: Death) -> None:
        self.notes.append((list(pulse.chunks()), death))


def supervise(code: str, count: int = 1, *, burst: bool = False, kill_floor: float = 0.2) -> tuple[Supervisor, Ledger]:
    """Supervise programs that find their pulse in `pulse`."""
    imports = "import sys, time, os; from pathlib import Path; from workers.vitals.pulse import *"
    start = f"{imports}; pulse = Pulse(Path(sys.argv[-1]))"
    ledger = Ledger()
    words = [sys.executable, "-c", f"{start}\n{code}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start_program(path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*words, str(path)], start_new_session=True, env=environment)

    return Supervisor(start_program, count, 4, ledger, kill_floor, burst=burst), ledger


READY = "pulse.cells[TICK] = time.monotonic()\n"


def put_current(index: int, last_moment: float) -> str:
    return (
        f"row = pulse.hold('b:0'); now = time.monotonic(); pulse.cells[SINCE] = now; "
        f"pulse.cells[LAST_MOMENT] = now + {last_moment}; pulse.cells[CURRENT] = job_number(row, {index})\n"
    )


async def run_until(supervisor: Supervisor, condition: Any) -> int:
    """Run until a condition holds, then stop."""
    running = asyncio.create_task(supervisor.run())
    try:
        await until(condition)
    finally:
        for child in supervisor._children:
            child.process.kill()
        supervisor.stop()
        code = await running
    return code


async def test_a_process_that_stands_still_past_its_jobs_last_moment_is_killed() -> None:
    supervisor, ledger = supervise(READY + put_current(5, 0.3) + "time.sleep(60)")
    began = time.monotonic()
    await run_until(supervisor, lambda: ledger.notes)
    assert time.monotonic() - began > 0.3
    chunks, death = ledger.notes[0]
    assert (chunks, death.ending, death.killed) == (["b:0"], "hung and was killed", True)
    assert death.current is not None
    assert (death.current.chunk_id, death.current.index) == ("b:0", 5)


async def test_a_process_that_cannot_be_ready_is_killed_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_START", 0.2)
    supervisor, ledger = supervise("time.sleep(60)")
    assert await run_until(supervisor, lambda: len(ledger.notes) >= 2) == 0
    assert {(death.current, death.killed) for _, death in ledger.notes[:2]} == {(None, True)}


async def test_a_process_that_stands_still_outside_any_job_is_killed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LONGEST_STALL", 0.5)
    supervisor, ledger = supervise(READY + "pulse.hold('b:0'); time.sleep(60)")
    await run_until(supervisor, lambda: ledger.notes)
    assert ledger.notes[0] == (["b:0"], Death("hung and was killed", killed=True))


@pytest.fixture
def child(tmp_path: Path) -> Any:
    """Give a process that lives, with its loop just turned."""
    path = tmp_path / "pulse"
    pulse = Pulse.create(path, 4)
    pulse.cells[TICK] = time.monotonic()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:  # noqa: S607  # any sleep will do
        yield Child(process, pulse, path, time.monotonic())
        process.kill()
    pulse.close()


@pytest.mark.parametrize(
    ("tick", "since", "last_moment", "is_hanging"),
    [
        (-1.0, -1.0, -0.5, True),
        (-0.1, -1.0, -0.5, False),  # the loop turns: the job was left behind, and is at work again
        (-1.0, -0.1, -0.5, False),  # a loop with much to do, and one that is overdue just has its turn
        (-1.0, -1.0, +0.5, False),  # it blocks, and may
        (-1.0, -1.0, -0.01, False),  # the interrupt inside the process has the first word
    ],
)
def test_only_one_long_step_past_its_last_moment_is_a_hang(
    child: Child, tick: float, since: float, last_moment: float, is_hanging: bool
) -> None:
    supervisor, _ = supervise("", kill_floor=0.5)
    now = time.monotonic()
    cells = child.pulse.cells
    cells[TICK], cells[SINCE], cells[LAST_MOMENT] = now + tick, now + since, now + last_moment
    cells[CURRENT] = job_number(child.pulse.hold("b:0"), 1)
    assert supervisor._is_hanging(child, now) is is_hanging


async def test_the_culprit_is_who_held_the_loop_when_it_was_judged(child: Child) -> None:
    ledger = Ledger()
    supervisor = Supervisor(lambda path: child.process, 1, 4, ledger, 0.1)
    supervisor._children.append(child)
    now = time.monotonic()
    cells, row = child.pulse.cells, child.pulse.hold("b:0")
    cells[TICK], cells[SINCE], cells[LAST_MOMENT], cells[CURRENT] = now - 1, now - 1, now - 1, job_number(row, 1)
    supervisor._look_at(child)
    cells[CURRENT], cells[SINCE] = job_number(row, 2), now  # it had gone on before the signal came
    await until(lambda: child.process.poll() is not None)
    supervisor._look_at(child)
    await asyncio.gather(*supervisor._settling)
    [(_, death)] = ledger.notes
    assert death.current is not None
    assert (death.current.index, death.killed) == (1, True)
    child.pulse = Pulse.create(child.path, 1)


async def test_who_stood_still_with_its_processes_lets_them_say_first_that_they_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STANDSTILL", 0.0)  # each look comes later than that
    supervisor, ledger = supervise(READY + put_current(0, -1) + "time.sleep(60)")
    ready_for = 0.0

    def was_killed_at_the_first_look() -> bool:
        nonlocal ready_for
        ready_for += 0.005 * any(child.is_ready for child in supervisor._children)
        if ready_for < 0.5:
            assert not ledger.notes
        else:
            monkeypatch.setattr(module, "_STANDSTILL", 60.0)
        return bool(ledger.notes)

    await run_until(supervisor, was_killed_at_the_first_look)


async def test_what_keeps_dying_is_started_again_ever_later() -> None:
    supervisor, _ = supervise("os.kill(os.getpid(), 9)")
    await run_until(supervisor, lambda: supervisor._failures >= 3)
    assert supervisor._start_at > time.monotonic()


def test_the_wait_between_starts_has_its_limit_however_often_they_fail() -> None:
    supervisor, _ = supervise("")
    supervisor._failures = 5000  # 2**5000 is no float
    supervisor._back_off()
    assert 9 < supervisor._start_at - time.monotonic() <= 10


async def test_what_dies_under_a_job_is_replaced_at_once() -> None:
    supervisor, ledger = supervise(READY + put_current(0, 60) + "os._exit(0)")
    began = time.monotonic()
    await run_until(supervisor, lambda: len(ledger.notes) >= 4)
    assert supervisor._failures == 0
    assert {(chunks[0], death.ending, death.in_order) for chunks, death in ledger.notes[:4]} == {
        ("b:0", "exit code 0", False)
    }
    assert time.monotonic() - began < 8


async def test_a_system_that_starts_no_processes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, _ = supervise(READY + "time.sleep(60)")
    refusals = 0
    popen = subprocess.Popen

    def refuse(*args: Any, **options: Any) -> Any:
        nonlocal refusals
        refusals += 1
        if refusals < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return popen(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse)
    await run_until(supervisor, lambda: supervisor._is_proven)
    assert refusals == 3


async def test_burst_is_over_when_each_process_has_left() -> None:
    supervisor, ledger = supervise(READY + "time.sleep(0.1)", 3, burst=True)
    assert await supervisor.run() == 0
    assert not ledger.notes


async def test_a_supervisor_that_is_cancelled_leaves_no_process() -> None:
    supervisor, _ = supervise(READY + "time.sleep(60)", 2)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(supervisor._children) == 2)
    running.cancel()
    await asyncio.wait({running})  # the guard against leaked processes looks for them
    assert running.cancelled()
