"""The deaths of workers under jobs: what is kept of them, and when a job is tried no more."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, TypeAdapter, ValidationError

# A job that has killed its worker so often is not tried again, nor one under which twice as many have died in doubt.
MOST_CRASHES = 3
# After so many it runs alone, in a process of its own: so it is known who did it, and nobody else is harmed.
SUSPICIOUS_CRASHES = 2


class Crash(BaseModel):
    """The death of a worker under some jobs of a chunk; see crashes.lua.

    Args:
        worker: Its id.
        start: The first of these jobs.
        stop: The one behind the last of them.
        ending: How it ended.
        doubtful: Whether its lease has lapsed, or the job ran in a process of its own, so that it may have been
            another's doing: that makes the job suspicious, but burns no attempt.
        started_at: When the job had started, if it is known which it was, Unix s.
        ended_at: When it ended, or was found dead, Unix s.
        harmless: Whether it was killed for another job's sake: that is noted among these jobs' attempts, and counts
            for nothing.
    """

    worker: str
    start: int
    stop: int
    ending: str
    doubtful: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    harmless: bool = False

    def is_under(self, index: int) -> bool:
        """Whether the worker died under this job."""
        return self.start <= index < self.stop


_crashes: TypeAdapter[list[Crash]] = TypeAdapter(list[Crash])


def is_poison(crashes: Sequence[Crash]) -> bool:
    """Whether a job under which these workers have died is not to be tried again."""
    return sum(not crash.doubtful for crash in crashes) >= MOST_CRASHES or len(crashes) >= 2 * MOST_CRASHES


def read_crashes(data: bytes | None) -> list[Crash]:
    """Read the deaths noted for a chunk."""
    if data is None:
        return []
    try:
        return _crashes.validate_json(data)
    except ValidationError:  # not ours: the jobs run as if nothing had happened
        return []
