"""A job that blocks the event loop is interrupted in its own frame once its time is up, and nothing else ever is."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from tests.conftest import PATIENCE
from workers.ending.outcomes import Outcome, Raised, Returned, TimedOut
from workers.interrupts import Interrupted, Interrupts, _is_inside
from workers.timeouts import Run
from workers.timing.deadlines import Deadlines

LIMIT, GRACE = 0.1, 0.3
# What a busy machine may add to our bound, s; what is not interrupted blocks for a minute or for ever.
SLOW = 20.0


class OverRun(Run):
    """A run that tells when it is over."""

    def __init__(
        self, call: Coroutine[Any, Any, Any], deadlines: Deadlines, limit: float = LIMIT, grace: float = GRACE
    ) -> None:
        self.over = asyncio.Event()
        super().__init__(call, limit, grace, deadlines)

    def ended(self) -> None:
        self.over.set()


@contextmanager
def interrupting(deadlines: Deadlines) -> Iterator[Interrupts]:
    interrupts = Interrupts(deadlines)
    interrupts.start()
    try:
        yield interrupts
    finally:
        interrupts.stop()
        deadlines.close()


async def outcome_of(
    call: Coroutine[Any, Any, Any], limit: float = LIMIT, grace: float = GRACE
) -> tuple[Outcome | None, float]:
    """Run one coroutine to its end; returns what it ended in, and how long that took."""
    deadlines = Deadlines()
    with interrupting(deadlines):
        run = OverRun(call, deadlines, limit, grace)
        await run.over.wait()
        await asyncio.wait({run.task}, timeout=5)
    return run.outcome, run.finished - run.started


# ---- what is interrupted


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(60)


def backtrack() -> None:
    re.match(r"(a+)+$", "a" * 40 + "b")


def receive() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.recv(1)


def run_a_program() -> None:
    subprocess.run(["sleep", "60"], check=False)  # noqa: S607  # any sleep will do


def lock() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire()


def swallow_exceptions() -> None:
    while True:
        try:  # noqa: SIM105  # as people write it
            time.sleep(0.01)
        except Exception:  # noqa: BLE001, S110  # what it is about
            pass


@pytest.mark.parametrize(
    "block",
    [spin, sleep, backtrack, receive, run_a_program, lock, swallow_exceptions],
    ids=lambda block: block.__name__,
)
async def test_a_blocking_job_is_interrupted_at_its_deadline(block: Callable[[], None]) -> None:
    async def call() -> None:
        block()

    outcome, took = await outcome_of(call())
    assert outcome == TimedOut(LIMIT, "running", "interrupted")
    assert LIMIT <= took < LIMIT + SLOW


async def test_a_job_that_begins_to_block_shortly_before_its_deadline_is_interrupted_in_time() -> None:
    # The second look at the loop, a second after the first, must not be the next.
    async def call() -> None:
        await asyncio.sleep(1.08)
        spin()

    for _ in range(5):  # a busy machine may be late once, not each time
        outcome, took = await outcome_of(call(), limit=1.15)
        if outcome == TimedOut(1.15, "running", "interrupted") and took < 1.15 + 0.5:
            return
    pytest.fail(f"in the end it was {outcome}, {took - 1.15:.2f} s late")


async def test_nothing_is_raised_before_the_deadline() -> None:
    async def call() -> str:
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            pass
        return "done"

    outcome, _ = await outcome_of(call(), limit=30)
    assert outcome == Returned("done")


async def test_an_interrupted_job_may_clean_up_with_awaits_within_its_grace() -> None:
    cleaned: list[float] = []

    async def call() -> None:
        try:
            spin()
        finally:
            await asyncio.sleep(GRACE / 3)
            cleaned.append(1)

    outcome, took = await outcome_of(call(), grace=SLOW)
    assert cleaned
    assert outcome == TimedOut(LIMIT, "running", "interrupted")
    assert took >= LIMIT + GRACE / 3


async def test_cleanup_that_awaits_past_its_grace_is_cancelled_and_left_behind() -> None:
    ended: list[str] = []

    async def call() -> None:
        try:
            spin()
        finally:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    outcome, took = await outcome_of(call())
    assert outcome == TimedOut(LIMIT, "running", "abandoned")
    assert took < LIMIT + GRACE + SLOW
    assert ended == ["cancelled"]


async def test_a_job_that_swallows_its_interruption_and_blocks_on_is_interrupted_again_after_grace() -> None:
    times: list[float] = []

    async def call() -> None:
        for _ in range(2):
            try:
                spin()
            except Interrupted:
                times.append(time.monotonic())
        spin()

    outcome, took = await outcome_of(call())
    assert outcome == TimedOut(LIMIT, "running", "interrupted")
    assert len(times) == 2
    assert LIMIT + GRACE <= took < LIMIT + GRACE + 0.1 + SLOW


async def test_a_cancelled_job_that_blocks_in_its_cleanup_is_interrupted_after_grace() -> None:
    async def call() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            spin()

    outcome, took = await outcome_of(call())
    assert isinstance(outcome, TimedOut)
    assert LIMIT + GRACE <= took < LIMIT + GRACE + SLOW


async def test_a_program_that_an_interrupted_job_ran_is_ended_and_reaped() -> None:
    async def call() -> None:
        run_a_program()

    await outcome_of(call())  # the guard against leaked processes looks for it


# ---- what is not


def deep(frames: list[FrameType | None]) -> None:
    frames.append(sys._getframe())


async def test_a_frame_is_inside_a_coroutine_that_called_it_and_inside_no_other() -> None:
    frames: list[FrameType | None] = []

    async def call() -> None:
        deep(frames)
        frames.append(sys._getframe())
        await asyncio.sleep(0)

    async def other() -> None:
        await asyncio.sleep(0)

    one, two = call(), other()
    one.send(None)
    assert all(_is_inside(frame, one) for frame in frames)
    assert not any(_is_inside(frame, two) for frame in frames)
    assert not _is_inside(sys._getframe(), one)
    assert not _is_inside(None, one)
    one.close()
    two.close()
    assert not _is_inside(frames[0], one)  # an ended coroutine has no frame


async def test_no_frame_is_inside_that_loses_what_is_raised_in_it() -> None:
    frames: list[FrameType | None] = []

    class Seen(set[Any]):
        def discard(self, _: Any) -> None:
            deep(frames)

    async def call() -> None:
        tasks: Any = weakref.WeakSet()
        tasks.data = Seen()
        task = set[int]()
        gone = weakref.ref(task, tasks._remove)
        del task
        assert gone() is None
        await asyncio.sleep(0)

    one = call()
    one.send(None)
    assert frames
    assert not any(_is_inside(frame, one) for frame in frames)
    one.close()


def test_a_tracers_own_code_is_not_the_jobs() -> None:
    """An interrupt there would leave coverage's lock taken, and the process standing still for ever."""
    tracer: dict[str, Any] = {"__name__": "coverage.collector", "sys": sys}
    exec("def lock_data(): return sys._getframe()", tracer)  # noqa: S102  # code of a module of that name
    frames: list[FrameType] = []

    async def call() -> None:
        frames.extend([sys._getframe(), tracer["lock_data"]()])
        await asyncio.sleep(0)

    one = call()
    one.send(None)
    assert [_is_inside(frame, one) for frame in frames] == [True, False]
    one.close()


class Overdue:
    """A run whose time is up."""

    name, started, limit, number = "overdue", 0.0, 1.0, 3.0

    def __init__(self, call: Coroutine[Any, Any, Any]) -> None:
        self.call = call
        self.fields = {"job": self.name}
        self.when = self.last_moment = 0.0
        self.told = 0

    def is_due(self, now: float) -> bool:
        return now >= self.when

    def ring(self) -> None: ...

    def postpone(self, seconds: float) -> None: ...

    def interrupted(self, now: float) -> None:
        self.told += 1
        self.when = self.last_moment = now + 60


async def test_the_handler_raises_in_the_overdue_jobs_frames_only() -> None:
    frames: list[FrameType | None] = []

    async def call() -> None:
        deep(frames)
        await asyncio.sleep(0)

    deadlines = Deadlines()
    run = Overdue(call())
    run.call.send(None)
    with interrupting(deadlines) as interrupts:
        interrupts._on_alarm(frames[0])  # nobody is current
        deadlines.enter(run)
        interrupts._on_alarm(sys._getframe())  # ours
        interrupts._on_alarm(None)
        run.when = time.monotonic() + 60
        interrupts._on_alarm(frames[0])  # not due
        assert run.told == 0
        run.when = 0.0
        with pytest.raises(Interrupted):
            interrupts._on_alarm(frames[0])
        assert run.told == 1
        interrupts._on_alarm(frames[0])  # not due again
        deadlines.leave(run)
    run.call.close()


async def test_the_loop_and_other_tasks_are_never_interrupted() -> None:
    deadlines = Deadlines()
    with interrupting(deadlines):
        run = OverRun(asyncio.sleep(60), deadlines)
        time.sleep(LIMIT + 0.2)  # a stranger blocks the loop, past the run's deadline
        await run.over.wait()
    assert isinstance(run.outcome, TimedOut)


async def test_random_stalls_among_200_jobs_interrupt_nobody_but_the_overdue() -> None:
    rolls = random.Random(7)
    strays: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    deadlines = Deadlines()

    async def work(seconds: float, *, blocks: bool) -> str:
        for _ in range(4):
            await asyncio.sleep(seconds / 4)
        if blocks:
            spin()
        return "done"

    with interrupting(deadlines):
        blocking = {OverRun(work(0.01 * rolls.random(), blocks=True), deadlines, 0.02) for _ in range(40)}
        quick = {OverRun(work(rolls.random(), blocks=False), deadlines, 30) for _ in range(160)}
        began = time.monotonic()
        for run in blocking | quick:
            await run.over.wait()
        assert time.monotonic() - began < 40 * (0.02 + 0.1) + SLOW  # one after the other, each interrupted at once
    assert not [run.outcome for run in quick if not isinstance(run.outcome, Returned)]
    assert {run.outcome.stopped for run in blocking if isinstance(run.outcome, TimedOut)} <= {
        "interrupted",
        "cancelled",
    }
    assert not [run.outcome for run in blocking if isinstance(run.outcome, Raised)]
    assert not strays


# ---- SIGALRM is borrowed


def test_handler_and_timer_are_given_back() -> None:
    rung: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda signum, _: rung.append(signum))
    mine = signal.getsignal(signal.SIGALRM)
    try:
        signal.setitimer(signal.ITIMER_REAL, 2.0, 50.0)
        with interrupting(Deadlines()):
            assert signal.getsignal(signal.SIGALRM) is not mine
            time.sleep(0.1)
        assert signal.getsignal(signal.SIGALRM) is mine
        delay, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < delay <= 1.9
        assert interval == pytest.approx(50.0)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.1)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_without_a_former_timer_none_is_left() -> None:
    with interrupting(Deadlines()):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.parametrize("first", [0, 1])
async def test_two_workers_in_one_process_share_the_alarm(first: int) -> None:
    async def call() -> None:
        spin()

    both = [Deadlines(), Deadlines()]
    interrupts = [Interrupts(deadlines) for deadlines in both]
    for one in interrupts:
        one.start()
    interrupts[first].stop()
    other = 1 - first
    run = OverRun(call(), both[other])
    await run.over.wait()
    assert run.outcome == TimedOut(LIMIT, "running", "interrupted")
    interrupts[other].stop()
    interrupts[other].stop()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


async def cancelled_in_time(result: list[Outcome | None]) -> None:
    outcome, _ = await outcome_of(asyncio.sleep(60))
    result.append(outcome)


def test_off_the_main_thread_everything_else_works() -> None:
    result: list[Outcome | None] = []
    before = signal.getsignal(signal.SIGALRM)
    thread = threading.Thread(target=asyncio.run, args=(cancelled_in_time(result),))
    thread.start()
    thread.join(PATIENCE)
    assert result == [TimedOut(LIMIT, "running", "cancelled")]
    assert signal.getsignal(signal.SIGALRM) == before


async def test_on_a_platform_without_setitimer_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "setitimer")
    outcome, _ = await outcome_of(asyncio.sleep(60))
    assert outcome == TimedOut(LIMIT, "running", "cancelled")
