"""Coroutines that end in all the ways there are, and a run that can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from protocol.results import Phase
from tests.conftest import PATIENCE
from workers.ending.outcomes import Outcome, TimedOut
from workers.timeouts import Run
from workers.timing.deadlines import Deadlines

LIMIT = 0.03
LONG = 60.0
# What a busy machine may add to a bound, s.
SLOW = 20.0

Call = Coroutine[Any, Any, Any]
Meanwhile = Callable[[Run], Awaitable[None]]


class WatchedRun(Run):
    """A run that tells of its beginning and its end."""

    def __init__(self, call: Call, limit: float = LONG, grace: float = LONG, phase: Phase = "running") -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.ends: list[Outcome | None] = []
        super().__init__(call, limit, grace, Deadlines(), phase)

    def began(self) -> None:
        self.begun.set()

    def ended(self) -> None:
        self.ends.append(self.outcome)
        self.over.set()


async def ended(
    call: Call, meanwhile: Meanwhile | None = None, limit: float = LONG, grace: float = LONG, phase: Phase = "running"
) -> WatchedRun:
    """Run a coroutine to its outcome, and let something happen meanwhile."""
    run = WatchedRun(call, limit, grace, phase)
    async with asyncio.timeout(PATIENCE):
        if meanwhile is not None:
            await run.begun.wait()
            await meanwhile(run)
        await run.over.wait()
    return run


async def outcome(
    call: Call, meanwhile: Meanwhile | None = None, limit: float = LONG, grace: float = LONG
) -> Outcome | None:
    return (await ended(call, meanwhile, limit, grace)).outcome


def timed_out(stopped: Any) -> TimedOut:
    return TimedOut(LIMIT, "running", stopped)


async def cancel(run: Run) -> None:
    run.cancel("enough")


async def hand_back(run: Run) -> None:
    run.hand_back()


async def hang() -> None:
    await asyncio.Event().wait()


async def swallow(then: Callable[[], Any]) -> Any:
    """Hang, swallow the cancellation, then do something else."""
    try:
        await hang()
    except asyncio.CancelledError:
        return then()


def raise_error() -> None:
    raise ValueError("in cleanup")


def raise_cancelled() -> None:
    raise asyncio.CancelledError


async def ignore_cancellation_until(end: asyncio.Event) -> str:
    while not end.is_set():
        try:
            await end.wait()
        except asyncio.CancelledError:
            continue
    return "at last"
