"""A worker's heartbeat: how far its loop lags, a tick for the supervisor, and what must be looked after regularly."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import CURRENT, NOBODY, SUPERVISOR, TICK

# Seconds from beat to beat.
INTERVAL = 0.1
# A beat that is later than this, s, and not for a job's sake: the process was stopped (Ctrl-Z), the machine asleep, or
# too busy for us. No job is to blame, and none pays for it.
_STANDSTILL = 1.0


class Heart:
    """Beat as long as the event loop turns; where it stood still, the jobs' clocks move by as much.

    Args:
        deadlines: Its cells take the tick, its runs left behind are counted.
        max_abandoned: How many of those are borne with.
        on_exhausted: Called at every beat at which there are more.
        on_orphaned: Called at every beat after the supervisor is gone, where there was one.
        on_beat: Called at every beat.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        max_abandoned: int,
        on_exhausted: Callable[[], None],
        on_orphaned: Callable[[], None],
        on_beat: Callable[[], None],
    ) -> None:
        self._deadlines = deadlines
        self._max_abandoned = max_abandoned
        self._on_exhausted = on_exhausted
        self._on_orphaned = on_orphaned
        self._on_beat = on_beat
        self._worst_lag = 0.0
        self._supervisor = int(deadlines.cells[SUPERVISOR])
        self._held = 0.0
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to beat; whoever watches sees from now on that this process works."""
        self._beat(time.monotonic())

    def stop(self) -> None:
        """Beat no longer."""
        if self._next is not None:
            self._next.cancel()

    def take_lag(self) -> float:
        """Tell the loop's worst lag since this was asked last, s."""
        lag, self._worst_lag = self._worst_lag, 0.0
        return lag

    def _beat(self, due: float) -> None:
        # Not a task: what comes after a standstill is to find the clocks moved, and a timer is there a turn sooner.
        now = time.monotonic()
        self._next = asyncio.get_running_loop().call_later(INTERVAL, self._beat, now + INTERVAL, context=Context())
        self._move_clocks(now - due)
        self._deadlines.cells[TICK] = now
        self._deadlines.cells[CURRENT] = NOBODY
        self._on_beat()
        self._worst_lag = max(self._worst_lag, now - due)
        if len(self._deadlines.left_behind) > self._max_abandoned:
            self._on_exhausted()
        # Whose parent is no supervisor does without it: a script whose shell was closed.
        if self._supervisor and os.getppid() != self._supervisor:
            self._on_orphaned()

    def _move_clocks(self, lag: float) -> None:
        held, self._held = self._deadlines.held - self._held, self._deadlines.held
        if lag - held > _STANDSTILL:
            self._deadlines.stood_still(lag - held)


def resident_memory() -> int:
    """Tell this process' resident memory, bytes; 0 where the system does not say it in Linux' way."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
