"""Jobs whose clocks run out while they wait in a worker: each gets its result then, not when its turn comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from protocol.chunks import Calls
from protocol.clock import RedisClock
from protocol.jobs import JobSpec
from protocol.results import Phase
from workers.starting.unstarted import Unstarted
from workers.timing.clocks import ChunkClocks

# A timer may come a little early; what is late by then has its result at once, s.
_AFTER_A_CLOCK = 0.001


class Lateness:
    """Watch the clocks of jobs that have not started.

    Args:
        unstarted: These jobs.
        jobs: All jobs of their chunk.
        first: Index of the first of all.
        clocks: Their clocks.
        clock: Redis' clock.
        tell: Called with index, limit and phase of each that is late: it has been taken out.
    """

    def __init__(
        self,
        unstarted: Unstarted,
        jobs: Sequence[JobSpec[Any]],
        first: int,
        clocks: ChunkClocks,
        clock: RedisClock,
        tell: Callable[[int, float, Phase], None],
    ) -> None:
        self._unstarted = unstarted
        self._jobs = jobs
        self._first = first
        self._clocks = clocks
        self._clock = clock
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look again when the first of their clocks runs out."""
        self.close()
        jobs, waiting = self._jobs, self._unstarted.every()
        if isinstance(jobs, Calls) and not any(kind.has_own_clock for kind in jobs.kinds):
            waiting = waiting[:1]  # what holds for one holds for all
        specs = [self._job(index) for index in waiting]
        moment = self._clocks.first_to_run_out(specs) if specs else None
        if moment is not None:
            delay = max(0.0, moment - self._clock.now()) + _AFTER_A_CLOCK
            self._timer = asyncio.get_running_loop().call_later(delay, self._end_late)

    def close(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end_late(self) -> None:
        waiting = self._unstarted.every()
        late = {index: why for index in waiting if (why := self._clocks.late(self._job(index))) is not None}
        self._unstarted.take_out(late)
        for index, why in late.items():
            self._tell(index, *why)
        self.watch()

    def _job(self, index: int) -> JobSpec[Any]:
        return self._jobs[index - self._first]
