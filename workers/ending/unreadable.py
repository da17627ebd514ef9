"""Chunks that cannot be read: each of their jobs ends in a failure that says why."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from protocol.errors import ProtocolError
from protocol.jobs import JobSpec
from workers.claims import Claimed
from workers.ending.rows import Rows

logger = logging.getLogger(__name__)


class Unreadable(Protocol):
    """A chunk whose jobs are not known."""

    claimed: Claimed
    rows: Rows

    def put(self, row: Any) -> None:
        """Record a result."""


def fail_all(chunk: Unreadable, error: ProtocolError) -> None:
    """Give all jobs of a chunk this result."""
    claimed = chunk.claimed
    logger.error(
        "chunk %s cannot be read", claimed.chunk_id, exc_info=error,
        extra={"event": "chunk.unreadable", "batch": claimed.payload.batch_id, "chunk": claimed.chunk_id},
    )  # fmt: skip
    unknown: JobSpec[Any] = JobSpec(function="unknown")
    for index in claimed.open_jobs():
        chunk.put(chunk.rows.failed(index, unknown, error))
