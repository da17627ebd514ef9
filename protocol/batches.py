"""A batch's options, as the producer gives them, and its status, as Redis counts it."""

from __future__ import annotations

import re
from os import urandom
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from protocol.errors import OptionError, explain, shorten, suggest
from protocol.own import Seconds
from protocol.running import RunningJob

DEFAULT_TIMEOUT = 300.0
DEFAULT_GRACE = 5.0
DEFAULT_BACKOFF = 1.0
DEFAULT_KEEP_RESULTS = 86_400.0

# A time beyond 30 years is a slip, and would not fit Redis' clocks when it is written in ms.
LongSeconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Unix seconds."""

_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def _is_tolerance(value: Any) -> int | float:
    is_count = type(value) is int and value >= 0
    is_share = type(value) is float and 0 < value < 1
    if not is_count and not is_share:
        raise ValueError("use a number of jobs from 0, such as 10, or a share of them between 0 and 1, such as 0.1")
    return cast("int | float", value)


Tolerance = Annotated[int | float, PlainValidator(_is_tolerance)]

STATUSES = ("success", "timeout", "failure", "cancelled", "lost")


class BatchOptions(BaseModel):
    """What holds for every job of a batch; a job's own value wins over it, and it wins over `@job`'s.

    Args:
        timeout: Longest run of one job, s; None leaves it to the function's own, and that to 300.
        queue_timeout: Longest wait of a job before it starts, s, from its submission.
        deadline: For the whole batch, s from its submission: no job starts after it, one that runs gets what remains.
        heartbeat_timeout: Longest time from a job's start to its first `current_job().heartbeat()`, and from one to the
            next, s; None leaves it to the function's own, and that to none.
        retries: Further attempts of a job; None leaves it to the function's own, and that to 0.
        backoff: Base of the exponential back-off between attempts, s; None leaves it to the function's own, and that
            to 1.
        retry_on: What is tried again: a failure, a timeout, or both.
        max_failures: Stop the batch past this many (int) or this share (float) of jobs that do not succeed.
        grace: Time for a cancelled job's cleanup, s; 0 allows none.
        keep_results: Lifetime of all the batch's keys after its last result, s.
        name: For people.
        metadata: For people; JSON values.
        trace: The span that the batch belongs to, as W3C's `traceparent`; where the program traces, it is filled in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: Seconds | None = None
    queue_timeout: Seconds | None = None
    deadline: LongSeconds | None = None
    heartbeat_timeout: Seconds | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    backoff: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    retry_on: Annotated[tuple[Literal["failure", "timeout"], ...], Field(min_length=1)] = ("failure",)
    max_failures: Tolerance | None = None
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DEFAULT_GRACE
    keep_results: LongSeconds = DEFAULT_KEEP_RESULTS
    name: Annotated[str, Field(max_length=200)] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    trace: Annotated[str, Field(max_length=200)] | None = None


def _words(value: Any) -> Any:
    """Split a text, as a header has it."""
    return value.split() if isinstance(value, str) else value


class BatchStatus(BaseModel):
    """How far a batch is, by its header in Redis; times are Unix seconds on Redis' clock.

    `queued` jobs wait in chunks that no worker has taken, `running` ones are with a worker; together with the five
    counts of results they make up `total`, which grows until the batch is `closed`; at `deadline` the
    batch's time is up. `stopped` says why none of its jobs starts any more, None if they do; at `cancelled_at` those
    that ran were cancelled, too. `slowest` are the few jobs that have been at work for the longest time, as their
    workers told within the last seconds; `Batch.status` asks for them, a list of batches does not. `callback` is the
    batch of its `on_complete` job, once that has been started; `callback_of` is the one whose end has started this. A
    redrive names its `parent`, and a batch its redrives, `children`.
    """

    model_config = ConfigDict(frozen=True)

    batch_id: str
    queue: str
    name: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    total: Count
    closed: bool
    taken: int = Field(default=0, repr=False, exclude=True)
    success: Count = 0
    timeout: Count = 0
    failure: Count = 0
    cancelled: Count = 0
    lost: Count = 0
    created_at: Moment
    deadline: Moment | None = None
    stopped: str | None = None
    cancelled_at: Moment | None = None
    finished_at: Moment | None = None
    parent: str | None = None
    children: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    callback: str | None = None
    callback_of: str | None = None
    slowest: tuple[RunningJob, ...] = ()

    def _repr_html_(self) -> str:
        from protocol.notebook import status_html  # noqa: PLC0415  # for notebooks only

        return status_html(self)

    @property
    def done(self) -> int:
        """Jobs that have their result."""
        return self.success + self.timeout + self.failure + self.cancelled + self.lost

    @property
    def running(self) -> int:
        """Jobs that are with a worker."""
        return max(0, min(self.taken, self.total) - self.done)

    @property
    def queued(self) -> int:
        """Jobs that no worker has taken yet."""
        return max(0, self.total - self.done - self.running)

    @property
    def complete(self) -> bool:
        """Whether the batch is closed and every job of it has its result."""
        return self.finished_at is not None


def options(**given: Any) -> BatchOptions:
    """Make a batch's options.

    Raises:
        OptionError: If one is unknown or cannot be; one line.
    """
    try:
        return BatchOptions(**given)
    except ValidationError as error:
        unknown = [name for name in given if name not in BatchOptions.model_fields]
        cure = f"; {suggest(unknown[0], BatchOptions.model_fields)}" if unknown else ""
        raise OptionError(f"batch option {explain(error)}{cure}") from None


def checked_id(batch_id: str | None) -> str:
    """Take the id that a caller has chosen for a batch, or choose a random one.

    Raises:
        OptionError: If it cannot be one.
    """
    if batch_id is None:
        return urandom(8).hex()
    if not _ID.fullmatch(batch_id):
        raise OptionError(f"batch_id {shorten(batch_id)!r} cannot be: use 1 to 100 letters, digits, '_', '.' and '-'")
    return batch_id
