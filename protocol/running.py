"""Jobs at work: what each worker tells once a second of those that have run for long, or have told how far they are.

It stands in one key a worker, a JSON array, for people to look at: nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from protocol.errors import ProtocolError, explain

MOST_TOLD = 50
"""Jobs that a worker tells of at most, the longest at work first."""
TOLD_AFTER = 1.0
"""It tells of a job that has run for this long, s, or has told how far it is."""


class RunningJob(BaseModel):
    """A job that a worker runs.

    Args:
        batch_id: Its batch.
        index: Its place in the batch, from 0.
        key: What the producer called it.
        function: The job's name.
        attempt: From 1.
        started_at: Unix s on Redis' clock.
        limit: What it may run, s; of a batch with a deadline, what was left of that if it is less.
        progress: How far it says it is, 0 to 1; None if it has not.
        note: What else it says.
        worker: Who runs it.
        elapsed: For how long it had run when this was read, s.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    batch_id: Annotated[str, Field(alias="batch")]
    index: int
    key: str | None = None
    function: str
    attempt: int = 1
    started_at: float
    limit: float
    progress: float | None = None
    note: str = ""
    worker: str = ""
    elapsed: float = 0.0

    @property
    def job_id(self) -> str:
        """`batch:index`."""
        return f"{self.batch_id}:{self.index}"


_jobs: TypeAdapter[list[RunningJob]] = TypeAdapter(list[RunningJob])
_OF_THE_READER: Any = {"__all__": {"worker", "elapsed"}}


def encode_running(jobs: Sequence[RunningJob]) -> bytes:
    """Write what a worker tells."""
    return _jobs.dump_json(list(jobs), by_alias=True, exclude=_OF_THE_READER)


def decode_running(data: bytes, key: str, worker: str, now: float) -> list[RunningJob]:
    """Read what a worker tells; `now` is Redis' time, Unix s.

    Raises:
        ProtocolError: If these bytes are no such thing; names `key`.
    """
    try:
        jobs = _jobs.validate_json(data)
    except ValidationError as error:
        raise ProtocolError(key, explain(error, 1)) from None
    return [job.model_copy(update={"worker": worker, "elapsed": max(0.0, now - job.started_at)}) for job in jobs]
