"""The clock of a job that has promised heartbeats: its time is up when it is silent for too long.

A heartbeat sets no timer: the run is rung when the silence would be too long by what was known then, and looks how long
it has lasted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workers.vitals.pulse import LAST_MOMENT

if TYPE_CHECKING:
    from protocol.results import Phase
    from workers.calling.runs import JobRun


class Silence:
    """Listen to one run, and set its clocks: of the silence and what else bounds it, the one that runs out first.

    Args:
        run: The run, before its start.
        longest: Longest silence, s.
    """

    __slots__ = ("_bound", "_heard_at", "_longest", "_run")

    def __init__(self, run: JobRun, longest: float) -> None:
        self._run = run
        self._longest = longest
        self._bound: tuple[float, Phase] = (run.limit, run.phase)
        self._heard_at = 0.0

    def begin(self) -> None:
        """Begin to listen, as the run starts."""
        self._heard_at = self._run.started
        self.choose()

    def choose(self) -> None:
        """Set the clock that runs out first, by what was heard so far; what is being stopped has its grace only."""
        run = self._run
        if run.is_stopping:
            return
        self._listen()
        silent_at = self._heard_at + self._longest
        if silent_at < run.deadline:
            run.bound(self._longest, "heartbeat", silent_at)
        else:
            run.bound(*self._bound, run.deadline)

    def postpone(self, seconds: float) -> None:
        """Take note that another job has held the loop, so that this one could not be heard."""
        self._listen()
        self._heard_at += seconds

    def heard(self) -> None:
        """Take note of a heartbeat: while the job holds the loop, the supervisor is to hear it, too."""
        run = self._run
        if run.deadlines.current is run:
            self.choose()
            run.deadlines.cells[LAST_MOMENT] = run.last_moment

    def reclock(self, limit: float, phase: Phase) -> float:
        """Take note of what else bounds the run now; returns how long it was before."""
        before, self._bound = self._bound[0], (limit, phase)
        return before

    def _listen(self) -> None:
        run = self._run
        report = run.chunk.runner.reports.get(run)
        if report is not None:
            self._heard_at = max(self._heard_at, report.beaten_at)
        if run.process is not None:
            # Before its code begins it cannot speak: the module is being imported.
            self._heard_at = max(self._heard_at, run.process.report.begun_at or time.monotonic())
