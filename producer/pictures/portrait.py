"""A batch's results, gathered for a picture of it: the task stream, how long jobs waited and ran, what they came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from producer.pictures.durations import Histogram
from producer.pictures.summary import Tally
from producer.pictures.taskstream import TaskStream
from protocol.errors import InputError, explain
from protocol.results import CancelledResult, FailureResult, LostResult, Result, SuccessResult, TimeoutResult


class Portrait:
    """Gather results; some 30 bytes are kept of each.

    Args:
        title: What the batch is called.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.stream = TaskStream()
        self.run, self.wait = Histogram(), Histogram()
        self.tally = Tally()
        self.begin: float | None = None
        self.end: float | None = None

    @property
    def elapsed(self) -> float:
        """From the first submission to the last result, s."""
        return 0.0 if self.begin is None or self.end is None else self.end - self.begin

    def add(self, result: Result[Any]) -> None:
        """Take a result."""
        self.tally.add(result)
        self.stream.add(result)
        times = [time for time in (result.enqueued_at, result.started_at, result.finished_at) if time is not None]
        if times:
            self.begin = min(times) if self.begin is None else min(self.begin, *times)
            self.end = max(times) if self.end is None else max(self.end, *times)
        if result.started_at is not None and result.finished_at is not None:
            self.run.add(result.finished_at - result.started_at, result.status)
            if result.enqueued_at is not None:
                self.wait.add(result.started_at - result.enqueued_at, result.status)


def read_results(path: Path) -> Iterator[Result[Any]]:
    """Read the results that a command has written as jsonl.

    Raises:
        InputError: If the file cannot be read, or a line of it is no result.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _read(line, f"{path} line {number}")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _read(line: str, place: str) -> Result[Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is no result: {error}") from None
    kinds: Mapping[str, type[Any]] = {
        "success": SuccessResult, "timeout": TimeoutResult, "failure": FailureResult,
        "cancelled": CancelledResult, "lost": LostResult,
    }  # fmt: skip
    kind = kinds.get(row.get("status", "")) if isinstance(row, dict) else None
    if kind is None:
        raise InputError(f"{place} is no result: it has no status of ours")
    try:
        found: Result[Any] = kind.model_validate(row)
    except ValidationError as error:
        raise InputError(f"{place} is no result: {explain(error, 1)}") from None
    return found
