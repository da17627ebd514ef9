"""A worker's heartbeat: how far its loop lags, a tick for the supervisor, and what must be looked after regularly."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import CURRENT, NOBODY, SUPERVISOR, TICK

# Seconds from beat to beat.
INTERVAL = 0.1


class Heart:
    """Beat as long as the event loop turns.

    Args:
        deadlines: Its cells take the tick, its runs left behind are counted.
        max_abandoned: How many of those are borne with.
        on_exhausted: Called at every beat at which there are more.
        on_orphaned: Called at every beat after the parent process is gone.
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
        # Its supervisor may have ended before this process was so far as to ask who its parent is.
        self._parent = int(deadlines.cells[SUPERVISOR]) or os.getppid()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to beat; whoever watches sees from now on that this process works."""
        self._deadlines.cells[TICK] = time.monotonic()
        self._task = asyncio.create_task(self._beat_for_ever(), name="straggler-heart")

    async def stop(self) -> None:
        """Beat no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def take_lag(self) -> float:
        """Tell the loop's worst lag since this was asked last, s."""
        lag, self._worst_lag = self._worst_lag, 0.0
        return lag

    async def _beat_for_ever(self) -> None:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            self._deadlines.cells[TICK] = now
            self._deadlines.cells[CURRENT] = NOBODY
            self._on_beat()
            self._worst_lag = max(self._worst_lag, now - due)
            if len(self._deadlines.left_behind) > self._max_abandoned:
                self._on_exhausted()
            if os.getppid() != self._parent:
                self._on_orphaned()
            due = now + INTERVAL
            await asyncio.sleep(INTERVAL)


def resident_memory() -> int:
    """Tell this process' resident memory, bytes; 0 where the system does not say it in Linux' way."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
