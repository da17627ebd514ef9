"""Watch over the clocks of many runs with one timer, and over who holds the event loop.

A timer for each run would cost every job what only the late ones need (1.3 of 20 us a no-op job): the timer is set for
the earliest time, and when it finds that run gone, for the earliest of those that still run.

A job whose step blocks the loop keeps all others from theirs: what it took moves their clocks, not its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, MutableSequence
from contextvars import Context
from typing import Any, Protocol

from workers.vitals.pulse import CELLS, CURRENT, LAST_MOMENT, LIMIT, NOBODY, SINCE, STARTED

logger = logging.getLogger(__name__)

# A step shorter than this, s, moves no clocks: it is an ordinary turn of the loop.
_STALL = 0.01
# One that is longer than this, s, is logged with its job's name.
_LONG_STALL = 1.0


class Watched(Protocol):
    """A run, as its clocks see it."""

    when: float
    """When `ring` is due, on the loop's clock: the deadline, and after it the end of grace."""
    last_moment: float
    """When the run must be over, on the loop's clock."""
    started: float
    limit: float
    number: float
    """Its name in the shared memory."""
    call: Any
    """Its coroutine."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def fields(self) -> dict[str, str]:
        """What to say of it in the fields of log lines."""

    def ring(self) -> None:
        """Take note that the time has come."""

    def postpone(self, seconds: float) -> None:
        """Move the clocks, as somebody else has held the loop."""


class Deadlines:
    """Ring runs at their times, from the event loop.

    Attributes:
        current: The run whose own code holds the loop now.
        code: The coroutine of that run which does: its own, or that of a task which it has started.
        is_fork: Whether this process is a job's fork of the worker.
        on_set: Called when the next time is set, with that time; who interrupts a blocked loop hears it.
        earliest: When the timer is due, on the loop's clock.
        held: How long, s, jobs have held the loop in steps that moved the others' clocks.
        left_behind: What ignored its cancellation and still goes on. (The loop holds tasks weakly; this holds them.)

    Args:
        cells: Where the current run is written down for the supervisor, by the places in `workers.vitals.pulse`.
    """

    def __init__(self, cells: MutableSequence[float] | memoryview[float] | None = None) -> None:
        self.current: Watched | None = None
        self.code: Any = None
        self.is_fork = False
        self.on_set: Callable[[float], None] | None = None
        self.held = 0.0
        self.left_behind: set[Any] = set()
        self.cells = cells if cells is not None else [0.0] * CELLS
        self._since = 0.0
        self._runs: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.earliest = math.inf

    def runs(self) -> Iterator[Watched]:
        """Go through the runs that are watched, those that began first at the front."""
        return iter(self._runs)

    def expect(self, when: float) -> None:
        """Be awake at a time: a run whose first step blocks the loop is not watched yet, and yet interrupted then."""
        if when < self.earliest:
            self._set(when)

    def watch(self, run: Watched) -> None:
        """Ring this run at its time; call again when that has changed."""
        self._runs[run] = None
        if run.when < self.earliest:
            self._set(run.when)

    def forget(self, run: Watched) -> None:
        """Watch this run no longer."""
        self._runs.pop(run, None)

    def close(self) -> None:
        """Stop to watch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.earliest = math.inf

    def enter(self, run: Watched) -> None:
        """Take note that a step of this run's own code begins."""
        self.current = run
        self.code = run.call
        cells = self.cells
        cells[SINCE] = self._since = time.monotonic()
        cells[LAST_MOMENT], cells[STARTED], cells[LIMIT] = run.last_moment, run.started, run.limit
        cells[CURRENT] = run.number

    def blame(self, run: Watched) -> None:
        """Write down for the supervisor that this run holds the loop."""
        cells = self.cells
        cells[SINCE] = self._since = time.monotonic()
        cells[LAST_MOMENT], cells[STARTED], cells[LIMIT] = run.last_moment, run.started, run.limit
        cells[CURRENT] = run.number

    def leave(self, run: Watched) -> float:
        """Take note that the step has ended; returns the time."""
        if self.is_fork:
            os._exit(0)  # the worker goes on in the process that it was
        self.current = self.code = None
        self.cells[CURRENT] = NOBODY
        now = time.monotonic()
        if now - self._since > _STALL:
            self._stalled(run, now - self._since)
        return now

    def stood_still(self, seconds: float) -> None:
        """Move the clocks of all runs, as the process has stood still."""
        logger.info(
            "the process stood still for %.1f s: its jobs have that much more time", seconds,
            extra={"event": "process.stood_still", "seconds": round(seconds, 3)},
        )  # fmt: skip
        for run in self._runs:
            run.postpone(seconds)

    def _stalled(self, culprit: Watched, took: float) -> None:
        self.held += took
        for run in self._runs:
            if run is not culprit:
                run.postpone(took)
        if took > _LONG_STALL:
            logger.warning(
                "%s blocked the event loop for %.3f s: all jobs of this worker waited; a plain def job would not block",
                culprit.name, took, extra={"event": "loop.stalled", **culprit.fields},
            )  # fmt: skip

    def _set(self, when: float) -> None:
        self.close()
        # In no job's context: what runs in one cannot cancel the tasks of others (`workers.starting.tasks`).
        self._timer = asyncio.get_running_loop().call_at(when, self._ring, context=Context())
        self.earliest = when
        if self.on_set is not None:
            self.on_set(when)

    def _ring(self) -> None:
        self._timer = None
        self.earliest = math.inf
        now = asyncio.get_running_loop().time()
        for run in [run for run in self._runs if run.when <= now]:
            del self._runs[run]
            run.ring()
        if self._runs:
            earliest = min(run.when for run in self._runs)
            if earliest < self.earliest:  # a run that was rung may have set it anew
                self._set(earliest)
