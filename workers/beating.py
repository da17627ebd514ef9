"""A run of a job that has promised heartbeats: its time is up when it is silent for too long.

A heartbeat costs no timer: the run is rung when the silence would be too long by what was known then, and looks how
long it has lasted.
"""

from __future__ import annotations

import time
from typing import Any

from protocol.results import Phase
from workers.pulse import LAST_MOMENT, UNNAMED, job_number
from workers.runs import JobRun


class BeatingRun(JobRun):
    """A run of a job that calls `current_job().heartbeat()`.

    `limit` and `phase` are those of the clock that runs out first: the silence, or what else bounds the run.

    Args:
        heartbeat_timeout: Longest silence, s.
        *args: See `JobRun`.
    """

    _heard_at = 0.0

    def __init__(self, heartbeat_timeout: float, *args: Any) -> None:
        super().__init__(*args)
        self.promises_heartbeats = True
        self._longest_silence = heartbeat_timeout
        self._bound: tuple[float, Phase] = (self.limit, self.phase)

    def listen(self) -> None:
        """Begin to listen."""
        self._heard_at = self.started
        self._choose()

    def ring(self) -> None:
        """Take note that the time has come, unless the job was heard meanwhile."""
        if self.is_due(self.when):
            super().ring()
        else:
            self.deadlines.watch(self)

    def is_due(self, now: float) -> bool:
        """Whether the time has come, by the last heartbeat."""
        if not self.is_stopping:
            self._choose()
        return super().is_due(now)

    def postpone(self, seconds: float) -> None:
        """Move the clocks, as another job has held the loop: this one could not be heard."""
        self._hear()
        self._heard_at += seconds
        super().postpone(seconds)

    def reclock(self, limit: float, phase: Phase) -> None:
        """Be bounded anew."""
        if self.is_stopping:
            return
        self.limit, self.phase = self._bound
        super().reclock(limit, phase)
        self._bound = (limit, phase)
        if self._entered:
            self._choose()

    def report(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat; the supervisor hears it, too, while the job holds the loop."""
        super().report(progress, note)
        if self.deadlines.current is self and not self.is_stopping:
            self._choose()
            self.deadlines.cells[LAST_MOMENT] = self.last_moment

    def _hear(self) -> None:
        report = self.chunk.runner.reports.get(self)
        if report is not None:
            self._heard_at = max(self._heard_at, report.beaten_at)
        if self.process is not None:
            # Before its code begins it cannot speak: the module is being imported.
            self._heard_at = max(self._heard_at, self.process.report.begun_at or time.monotonic())

    def _choose(self) -> None:
        """Set the clock that runs out first."""
        self._hear()
        silent_at = self._heard_at + self._longest_silence
        limit, phase = self._bound
        if silent_at < self.deadline:
            limit, phase = self._longest_silence, "heartbeat"
        self.when = min(silent_at, self.deadline)
        self.last_moment = self.when + self.grace
        self.limit, self.phase = limit, phase
        if self.number != UNNAMED:
            self.number = job_number(self.chunk.row, self.index, phase)
