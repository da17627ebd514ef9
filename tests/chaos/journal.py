"""The journal: a line as a job starts and one as it ends, appended by whichever process runs it.

Imports nothing of straggler: what is written here is the word of the jobs themselves.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The environment's names for where jobs write, and for the supervisor under which they run.
FOLDER = "CHAOS_FOLDER"
NODE = "CHAOS_NODE"
NAME = "journal.jsonl"

_descriptors: dict[int, int] = {}


@dataclass(slots=True)
class Run:
    """One run of one job, as it told it.

    Args:
        run_id: Its name, which is the value that it returns.
        batch_id: Its batch.
        index: Its place there.
        attempt: As `current_job()` said.
        worker: Id of the worker process that ran it.
        node: The supervisor of that.
        started: Unix s.
        ended: Unix s; None if it came to no end of its own.
        how: `returned` or `raised`; empty without an end.
        text: The value, or the error as `Type: message`.
    """

    run_id: str
    batch_id: str
    index: int
    attempt: int
    worker: int
    node: str
    started: float
    ended: float | None = None
    how: str = ""
    text: str = ""

    @property
    def was_cancelled(self) -> bool:
        """Whether it was stopped with a cancellation, which it let through."""
        return self.text.startswith("CancelledError")


def append(*fields: Any) -> None:
    """Append one line to the journal of this run of chaos, in one write, so that lines never mix.

    A line opens with a line break too: one that a kill has torn (the kernel may stop a write between two pages) spoils
    no other.
    """
    pid = os.getpid()
    if pid not in _descriptors:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _descriptors[pid] = os.open(Path(os.environ[FOLDER]) / NAME, flags, 0o644)
    os.write(_descriptors[pid], b"\n%b\n" % json.dumps(fields, separators=(",", ":")).encode())


def read(path: Path) -> list[Run]:
    """Read all runs, in order of their starts; a torn line was never written."""
    runs: dict[str, Run] = {}
    with path.open("rb") as file:
        for line in file:
            try:
                what, *fields = json.loads(line)
            except ValueError:
                continue
            if what == "start":
                runs[fields[0]] = Run(*fields)
            elif fields[0] in runs:
                run = runs[fields[0]]
                run.ended, run.how, run.text = fields[1:]
    return sorted(runs.values(), key=lambda run: run.started)
