"""Where a result file is: a small file beside it, so that a collector which was killed can go on without a row twice.

It says how many bytes of the result file hold the results up to which cursor. It is replaced in one step, after the
rows that it speaks of are on disk: what stands behind them in the file is of an instant later, and collected anew.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Mark(BaseModel):
    """The first `size` bytes of the file hold the results of this batch up to the cursor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: str
    cursor: str
    size: int = Field(ge=0)


class Bookmark:
    """The bookmark of a result file; `r.jsonl` has its own in `r.jsonl.cursor`.

    Args:
        file: The result file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._path = file.with_name(f"{file.name}.cursor")

    def find(self, batch_id: str) -> Mark | None:
        """Read where the file is with a batch; None if it knows nothing of it, or is shorter than it was."""
        try:
            mark = Mark.model_validate_json(self._path.read_bytes())
            size = self._file.stat().st_size
        except (OSError, ValidationError):
            return None
        return mark if mark.batch == batch_id and mark.size <= size else None

    def put(self, mark: Mark, descriptor: int) -> None:
        """Write the mark, once what it speaks of is on disk.

        Raises:
            OSError: If the disk is full.
        """
        os.fsync(descriptor)
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_text(mark.model_dump_json())
        fresh.replace(self._path)

    def remove(self) -> None:
        """Forget where the file is."""
        with suppress(FileNotFoundError):
            self._path.unlink()
