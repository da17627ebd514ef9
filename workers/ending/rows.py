"""What a job's run ended in, as the row that is recorded for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from protocol.attempts import encode_attempt
from protocol.clock import RedisClock
from protocol.jobs import JobSpec
from protocol.recording import Row, encode_row
from protocol.results import Phase
from workers.calling.calls import Encoded
from workers.crashes import Crash
from workers.ending.failures import asks_again, describe
from workers.ending.outcomes import Cancelled, Raised, Returned, TimedOut
from workers.registry import Job, UnusableValueError
from workers.timeouts import Run

logger = logging.getLogger(__name__)

# Where the value begins in `{"value":...}`.
_VALUE = len(b'{"value":')


class Rows:
    """Write rows for the jobs of one chunk.

    Args:
        function: The function that most of them call: it stands in the group's common fields.
        clock: Redis' clock.
        result_limit: Longest value of one job, bytes of JSON.
    """

    def __init__(self, function: str, clock: RedisClock, result_limit: int) -> None:
        self._function = function
        self._clock = clock
        self._result_limit = result_limit

    def ended(
        self, index: int, job: JobSpec[Any], function: Job[..., Any, Any], run: Run, attempt: int = 1
    ) -> Row | None:
        """Write down what a run ended in; None if it was handed back and runs elsewhere."""
        match run.outcome:
            case Returned(value):
                return self.returned(index, job, function, run, value, attempt)
            case Raised(error):
                return self.failed(index, job, error, run, attempt)
            case TimedOut(limit, phase, stopped):
                own = {"limit": limit, "phase": phase, "stopped": stopped}
                return self._row(index, job, "timeout", run, attempt, **own)
            case Cancelled(reason):
                return self._row(index, job, "cancelled", run, attempt, reason=reason)
            case _:
                return None

    def attempt(self, run: Run, number: int, worker_id: str) -> bytes:
        """Write down how a run ended that becomes no result, as the job runs again."""
        own: dict[str, Any] = {"status": "handed back"}
        match run.outcome:
            case Raised(error):
                own = {"status": "failure", **describe(error)}
                if asks_again(error) is not None:
                    own["message"] = "it asked to run again"
            case TimedOut(limit, phase, stopped):
                own = {"status": "timeout", "limit": limit, "phase": phase, "stopped": stopped}
        started_at, finished_at = round(self._clock.at(run.started), 6), round(self._clock.at(run.finished), 6)
        return encode_attempt(attempt=number, worker=worker_id, started_at=started_at, finished_at=finished_at, **own)

    def failed(
        self, index: int, job: JobSpec[Any], error: BaseException, run: Run | None = None, attempt: int = 1
    ) -> Row:
        """Write down a failure; without a run, one that kept the job from starting."""
        return self._row(index, job, "failure", run, attempt, **describe(error))

    def not_started(self, index: int, job: JobSpec[Any], limit: float, phase: Phase, attempt: int = 1) -> Row:
        """Write down that a clock ran out before the job could start."""
        return self._row(index, job, "timeout", None, attempt, limit=limit, phase=phase, stopped="not started")

    def cancelled(self, index: int, job: JobSpec[Any], reason: str, attempt: int = 1) -> Row:
        """Write down that the job was cancelled before it could start."""
        return self._row(index, job, "cancelled", None, attempt, reason=reason)

    def lost(self, index: int, job: JobSpec[Any], crashes: Sequence[Crash]) -> Row:
        """Write down that workers have died under the job, the last of these deaths at the end."""
        last = crashes[-1]
        own: dict[str, Any] = {
            "worker": last.worker,
            "reason": f"its worker process ended under it {len(crashes)} times, last by {last.ending}",
        }
        if last.started_at is not None:
            own["started_at"] = round(last.started_at, 6)
        if last.ended_at is not None:
            own["finished_at"] = round(last.ended_at, 6)
        return self._row(index, job, "lost", None, len(crashes), **own)

    def returned(
        self, index: int, job: JobSpec[Any], function: Job[..., Any, Any], run: Run, value: Any, attempt: int
    ) -> Row:
        """Write down a value that was returned."""
        try:
            encoded = value.text if isinstance(value, Encoded) else function.encode_value(value, self._result_limit)
        except UnusableValueError as error:
            return self.failed(index, job, error, run, attempt)
        if attempt == 1:
            called = None if job.function == self._function else job.function
            return index, "success", encoded[_VALUE:-1], run.started, run.finished, job.key, called
        _, _, row, *_ = self._row(index, job, "success", run, attempt)
        return index, "success", b"%b,%b" % (row[:-1], encoded[1:])

    def _row(self, index: int, job: JobSpec[Any], status: str, run: Run | None, attempt: int, **own: Any) -> Row:
        fields: dict[str, Any] = {"index": index, "status": status}
        if attempt != 1:
            fields["attempt"] = attempt
        if job.function != self._function:
            fields["function"] = job.function
        if job.key is not None:
            fields["key"] = job.key
        if run is not None:
            # Microseconds are as fine as Redis' clock is; more digits would only take room.
            fields["started_at"] = round(self._clock.at(run.started), 6)
            fields["finished_at"] = round(self._clock.at(run.finished), 6)
        else:
            fields["finished_at"] = round(self._clock.now(), 6)
        return index, status, encode_row(**{**fields, **own})


def say_done(batch_id: str, rows: Sequence[Row]) -> None:
    """Log what jobs have ended in."""
    for index, status, *_ in rows:
        name = f"{batch_id}:{index}"
        logger.debug(
            "job %s %s", name, status, extra={"event": "job.done", "batch": batch_id, "job": name, "result": status}
        )
