"""Suspicious jobs: those under which workers have died, and what ends the last of their processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from protocol.clock import RedisClock
from protocol.jobs import JobSpec
from workers.crashes import SUSPICIOUS_CRASHES, Crash
from workers.ending.outcomes import Outcome, Raised
from workers.ending.rows import Rows
from workers.processes import ProcessDiedError

logger = logging.getLogger(__name__)


class Ended(Protocol):
    """A run that has ended."""

    index: int
    outcome: Outcome | None
    started: float
    finished: float


class LosesJobs(Protocol):
    """A chunk whose job is lost."""

    batch_id: str
    rows: Rows


def is_suspicious(crashes: Sequence[Crash]) -> bool:
    """Whether a job under which these workers have died is to run alone."""
    return len(crashes) >= SUSPICIOUS_CRASHES


def crash_of(run: Ended, before: Sequence[Crash], clock: RedisClock, worker_id: str) -> Crash | None:
    """Say how a suspicious job has ended the process that it ran alone in, if it did.

    Args:
        run: Its run.
        before: The deaths of workers under it until then.
        clock: Redis' clock.
        worker_id: Whose process it was.
    """
    if not is_suspicious(before):
        return None
    match run.outcome:
        case Raised(ProcessDiedError(ending=ending)) if ending:
            started, ended = clock.at(run.started), clock.at(run.finished)
            return Crash(
                worker=worker_id, start=run.index, stop=run.index + 1, ending=ending, started_at=started, ended_at=ended
            )
        case _:
            return None


def lose(chunk: LosesJobs, index: int, job: JobSpec[Any], crashes: Sequence[Crash]) -> Any:
    """Write down that a job of a chunk is lost."""
    batch_id = chunk.batch_id
    logger.warning(
        "job %s:%d is lost: its process ended under it %d times", batch_id, index, len(crashes),
        extra={"event": "job.lost", "batch": batch_id, "job": f"{batch_id}:{index}"},
    )  # fmt: skip
    return chunk.rows.lost(index, job, crashes)
