"""The five ways in which a job ends, as one union discriminated on `status`."""

from __future__ import annotations

from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from protocol.errors import (
    JobCancelledError,
    JobFailedError,
    JobLostError,
    JobTimeoutError,
    UnsuccessfulError,
)

T = TypeVar("T")
D = TypeVar("D")

Phase = Literal["queued", "running", "batch", "deadline", "heartbeat"]
Stopped = Literal["not started", "cancelled", "interrupted", "abandoned", "killed", "late"]

PHASES: dict[Phase, str] = {
    "queued": "while queued",
    "running": "while running",
    "batch": "at the batch's deadline",
    "deadline": "at the job's own deadline",
    "heartbeat": "while silent",
}
"""Which clock ran out, for people."""

# A traceback is for people: its last 16 KiB hold the raising frames.
TRACEBACK_LIMIT = 16 * 1024


class JobResult(BaseModel):
    """What every result says. Times are Unix seconds on Redis' clock, None where it did not happen."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", ser_json_inf_nan="constants")

    job_id: str
    index: int
    key: str | None = None
    function: str
    attempt: int = 1
    worker: str | None = None
    enqueued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from the job's start to its end, to the microsecond; None for a job that never started."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round(self.finished_at - self.started_at, 6)

    @property
    def is_timeout(self) -> bool:
        """Whether one of the job's clocks ran out."""
        return isinstance(self, TimeoutResult)

    def value_or(self, default: D) -> Any | D:
        """Return the job's value, or `default` where it did not succeed."""
        return self.value if isinstance(self, SuccessResult) else default

    def _raise(self, kind: type[UnsuccessfulError], what: str) -> NoReturn:
        named = f" (key {self.key!r})" if self.key else ""
        raise kind(f"job {self.job_id} {self.function!r}{named} {what}", self)


class SuccessResult(JobResult, Generic[T]):
    """The job returned a value that fits."""

    status: Literal["success"] = "success"
    value: T

    def unwrap(self) -> T:
        """Return the job's value."""
        return self.value


class TimeoutResult(JobResult):
    """One of the job's clocks ran out.

    Args:
        limit: The clock, s.
        phase: Which clock: the wait in the queue, the run, the whole batch, the job's own deadline, or the time for
            which a job that promised heartbeats may be silent.
        stopped: How the job was stopped.
    """

    status: Literal["timeout"] = "timeout"
    limit: float
    phase: Phase
    stopped: Stopped

    def unwrap(self) -> NoReturn:
        """Raise JobTimeoutError."""
        self._raise(JobTimeoutError, f"timed out after {self.limit:g} s ({self.phase}, {self.stopped})")


class FailureResult(JobResult):
    """The job raised, or returned what cannot be a result.

    Args:
        error_type: Qualified name of the exception's class.
        message: The exception's text.
        traceback: Its traceback, the last 16 KiB of it.
    """

    status: Literal["failure"] = "failure"
    error_type: str
    message: str
    traceback: str = ""

    def unwrap(self) -> NoReturn:
        """Raise JobFailedError."""
        self._raise(JobFailedError, f"failed: {self.error_type}: {self.message}")


class CancelledResult(JobResult):
    """The job was cancelled on request."""

    status: Literal["cancelled"] = "cancelled"
    reason: str = ""

    def unwrap(self) -> NoReturn:
        """Raise JobCancelledError."""
        self._raise(JobCancelledError, f"was cancelled: {self.reason or 'no reason given'}")


class LostResult(JobResult):
    """The worker died under this job, `attempt` times."""

    status: Literal["lost"] = "lost"
    reason: str

    def unwrap(self) -> NoReturn:
        """Raise JobLostError."""
        self._raise(JobLostError, f"was lost: {self.reason}")


Unsuccessful: TypeAlias = TimeoutResult | FailureResult | CancelledResult | LostResult
Result: TypeAlias = SuccessResult[T] | Unsuccessful
