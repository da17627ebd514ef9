"""The straggler strip: running jobs that are furthest past what their siblings took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from dashboard.digest import Digest
from protocol.running import RunningJob

# From so few siblings on nobody can tell what is usual.
_FEWEST_SIBLINGS = 20
_MOST = 8


@dataclass(frozen=True, slots=True)
class Straggler:
    """A running job.

    Args:
        job: As its worker told.
        usual: The run time that 95 % of its function's jobs in the batch did not exceed, s; None if too few have ended.
    """

    job: RunningJob
    usual: float | None

    @property
    def excess(self) -> float:
        """How many times the usual it has run for; of its limit where nothing is usual yet."""
        return self.job.elapsed / max(self.usual or self.job.limit, 1e-6)

    @property
    def used(self) -> float:
        """The share of its limit that is used up, at most 1."""
        return min(1.0, self.job.elapsed / self.job.limit) if self.job.limit > 0 else 1.0

    @property
    def usual_share(self) -> float | None:
        """Where the usual stands on its limit; None if it is not known or beyond it."""
        return self.usual / self.job.limit if self.usual is not None and self.usual < self.job.limit else None


def stragglers(running: Iterable[RunningJob], digest: Digest) -> list[Straggler]:
    """Return the jobs that hold a batch up, the worst first."""

    @lru_cache
    def usual(function: str) -> float | None:
        runs = digest.runs_of(function)
        return runs.percentile(0.95) if runs.count >= _FEWEST_SIBLINGS else None

    found = [Straggler(job, usual(job.function)) for job in running]
    return sorted(found, key=lambda straggler: -straggler.excess)[:_MOST]
