"""What a job may have of its own beside its arguments: a key, and clocks; and what these may be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

LONGEST_NAME = 200
LONGEST_KEY = 1024

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Key = Annotated[str, Field(max_length=LONGEST_KEY)]

OWN: dict[str, Any] = {
    "key": Key | None,
    "timeout": Seconds | None,
    "queue_timeout": Seconds | None,
    "deadline": Seconds | None,
    "heartbeat_timeout": Seconds | None,
}
"""Fields of `JobSpec` and their types."""

NUMBER = "number"
"""What stands before these, in a row of a chunk that has several kinds of jobs: which kind."""

COLUMNS: dict[str, Any] = {NUMBER: int, **OWN}
"""What may stand in a row before its arguments."""
