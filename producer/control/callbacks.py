"""`on_complete`: the job that a batch starts when it is complete, written into the batch's header as it is submitted.

Whoever sees to the batch's last result starts it, in the same step (`protocol/scripts/ending.lua`): so it is enqueued
exactly once, and no producer need be there. It travels as a batch of its own, `<batch>.done`.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pydantic_core import from_json, to_json

from protocol import keys, signatures
from protocol.batches import BatchOptions, BatchStatus
from protocol.chunks import encode_jobs
from protocol.errors import OptionError, UsageError
from protocol.jobs import JobSpec, encode_job

STATUS = "status"
"""The keyword argument that the job gets: the batch's status, as `BatchStatus` is in JSON."""

# What is known only at the batch's end; it is put in where the text has its one line break, and JSON has none.
_LATER = {
    "total",
    "closed",
    "success",
    "timeout",
    "failure",
    "cancelled",
    "lost",
    "created_at",
    "deadline",
    "finished_at",
}


def encode_callback(job: Any, batch_id: str, queue: str, options: BatchOptions, limit_bytes: int) -> str:
    """Write a batch's `on_complete` for its header: a JSON object, see ending.lua.

    Args:
        job: What to start; its function takes the batch's status as `status`.
        batch_id: The batch.
        queue: Its queue, and the job's.
        options: The batch's.
        limit_bytes: Longest arguments of the job, bytes of JSON.

    Raises:
        UsageError: If it is no JobSpec.
        OptionError: If it has a `status` already.
        ArgumentsError: If its arguments do not fit its function, or that takes no `status`.
        PayloadTooLargeError: If they are too large.
    """
    if not isinstance(job, JobSpec):
        raise UsageError(f"on_complete={job!r} is not a JobSpec: make one with your_job.spec(...) or JobSpec(...)")
    if STATUS in job.kwargs:
        raise OptionError(f"on_complete: {job.function!r} gets its `status` from the batch: leave it out")
    status = BatchStatus(
        batch_id=batch_id, queue=queue, name=options.name, metadata=options.metadata,
        total=0, closed=True, created_at=0, finished_at=0,
    )  # fmt: skip
    told = status.model_dump(mode="json", exclude_none=True)
    encoded = _encode(job, told, limit_bytes)
    known = to_json({name: value for name, value in told.items() if name not in _LATER})
    own = BatchOptions(
        name=f"on_complete of {options.name or batch_id}"[:200], keep_results=options.keep_results, trace=options.trace
    )
    keep_ms, lifetime_ms = int(options.keep_results * 1000), int(keys.OPEN_BATCH_LIFETIME * 1000)
    return to_json(
        {
            "jobs": encode_jobs([_put_status(encoded, job.function, b"%b,\n}" % known[:-1])]),
            "options": own.model_dump_json(exclude_defaults=True),
            "keep_ms": keep_ms,
            "lifetime_ms": lifetime_ms,
            "kept": keys.BATCHES_KEPT,
        }
    ).decode()


def _encode(job: JobSpec[Any], status: dict[str, Any], limit_bytes: int) -> bytes:
    try:
        return encode_job(job.model_copy(update={"kwargs": {**job.kwargs, STATUS: status}}), limit_bytes)
    except UsageError as error:
        raise type(error)(f"on_complete: {error}") from None


def _put_status(encoded: bytes, function: str, status: bytes) -> bytes:
    """Write a job anew with this text for its status, which may stand among its positional arguments."""
    job, place = from_json(encoded), uuid4().hex
    if STATUS in job.get("kwargs", {}):
        job["kwargs"][STATUS] = place
    else:
        signature = signatures.known(function)
        job["args"][list(signature.parameters).index(STATUS) if signature else 0] = place
    return to_json(job, inf_nan_mode="constants").replace(to_json(place), status)
