"""A job's attempts that did not become its result, as they are kept and as they are told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from protocol.errors import ProtocolError, explain
from protocol.results import PHASES, Phase, Stopped

# A message is for people; the result has all of the last one.
_LONGEST_MESSAGE = 500


class Attempt(BaseModel):
    """One run of a job that did not become its result. Times are Unix seconds on Redis' clock, None if not known.

    Args:
        attempt: Its number, from 1. One that was handed back, or lost in doubt, does not count: the next has the same.
        status: How it ended: the job failed or timed out, and had retries left; its worker died under it, or handed it
            back, as it was told to stop or had lost its lease.
        worker: Where it ran.
        error_type: Of a failure: qualified name of the exception's class.
        message: Of a failure: the exception's text, cut at 500 characters.
        limit: Of a timeout: the clock, s.
        phase: Of a timeout: which clock.
        stopped: Of a timeout: how the job was stopped.
        ending: Of a death: how the worker ended, e.g. `signal SIGKILL`.
        doubtful: Of a death: whether the job may not have been at work, or the death was another's doing.
    """

    model_config = ConfigDict(frozen=True)

    attempt: int
    status: Literal["failure", "timeout", "died", "handed back"]
    worker: str
    started_at: float | None = None
    finished_at: float
    error_type: str | None = None
    message: str | None = None
    limit: float | None = None
    phase: Phase | None = None
    stopped: Stopped | None = None
    ending: str | None = None
    doubtful: bool = False

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end."""
        return None if self.started_at is None else self.finished_at - self.started_at

    @property
    def counts(self) -> bool:
        """Whether the next attempt has a number of its own."""
        return self.status != "handed back" and not self.doubtful

    @property
    def details(self) -> str:
        """How it ended, in words."""
        if self.status == "failure":
            return f"{self.error_type}: {self.message}"
        if self.status == "timeout":
            clock = PHASES[self.phase] if self.phase else ""
            return f"timed out after {self.limit or 0:g} s {clock}, {self.stopped}"
        if self.status == "died":
            doubt = "; it may not have been at work" if self.doubtful else ""
            return f"its worker died: {self.ending}{doubt}"
        return "handed back by its worker, to run elsewhere"


def encode_attempt(**fields: Any) -> bytes:
    """Write an attempt: the fields of `Attempt`, in one line; of a failure those of its result will do."""
    fields.pop("traceback", None)
    if "message" in fields:
        fields["message"] = fields["message"][:_LONGEST_MESSAGE]
    return to_json(fields, inf_nan_mode="constants")


def decode_attempts(lines: bytes, key: str) -> list[Attempt]:
    """Read what is kept of one job's attempts, oldest first.

    Raises:
        ProtocolError: If these bytes are none; names `key`.
    """
    try:
        return [Attempt.model_validate_json(line) for line in lines.splitlines()]
    except ValidationError as error:
        raise ProtocolError(key, explain(error, 1)) from None
