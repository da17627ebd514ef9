"""A chunk, as those see it who start its jobs."""

from __future__ import annotations

from typing import Any, Protocol

from workers.calling.runs import ConcludesRuns, JobRun
from workers.claims import Claimed
from workers.ending.rows import Rows


class StartsRuns(ConcludesRuns, Protocol):
    """A chunk, as it is told of what starts."""

    def note_start(self, index: int) -> None:
        """Take note that a job starts."""


class StartsJobs(StartsRuns, Protocol):
    """A chunk, as its starts see it."""

    claimed: Claimed
    rows: Rows

    def put(self, row: Any) -> None:
        """Record a result."""

    def took_turn(self) -> None:
        """Take note that no job is at work but those that were enlisted."""

    def enlist(self, run: JobRun) -> None:
        """Take note of a run that others may stop."""

    def stop(self) -> None:
        """Start no more jobs."""

    async def until_idle(self) -> None:
        """Wait until all that was started has ended and is recorded."""
