"""From an input to the jobs of a submission: checked first where it can be read twice, counted on the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.progress import Progress, make_progress
from producer.sources import Source, find_format, refuse
from protocol.errors import InputError, OptionError
from protocol.jobs import JobSpec
from straggler.commands.notes import notes
from straggler.commands.process import say
from straggler.commands.threads import in_thread

_BAD_ROWS_TOLD = 5
_ROWS_A_REPORT = 1000


@dataclass(frozen=True, slots=True)
class Input:
    """What the command line says of the input; the options' help says what each is."""

    path: str
    written_as: str | None
    key_field: str | None
    skip_bad_rows: bool

    def open(self, function: str, limit_bytes: int, out: str | None) -> Feed:
        """Make ready to feed; a file is read through once, before anything is sent, unless bad rows may be skipped.

        Raises:
            InputError: If the file cannot be read, or has a bad row.
            OptionError: If its format is not known, or the results would overwrite it.
        """
        if out is not None and _is_same_file(self.path, out):
            raise OptionError(f"--out {out} is the input itself: give the results a file of their own")
        source = Source(self.path, find_format(self.path, self.written_as), function, self.key_field, limit_bytes)
        if self.skip_bad_rows or not source.is_rereadable:
            return Feed(source, None, skip_bad_rows=self.skip_bad_rows)
        with make_progress(notes, live=notes.is_terminal) as progress:
            return Feed(source, _check(source, progress), skip_bad_rows=False)


class Feed:
    """The jobs of a source, on their way to a submission.

    Args:
        source: Where they come from.
        total: How many there are, if they were counted; they are then known to be good.
        skip_bad_rows: Whether to pass bad rows over.
    """

    def __init__(self, source: Source, total: int | None, *, skip_bad_rows: bool) -> None:
        self.source = source
        self.total = total
        self.count = 0
        self.skipped = 0
        self.begun = asyncio.Event()
        self.on_count: Callable[[int], None] = lambda count: None
        self._skips = skip_bad_rows

    def jobs(self) -> Any:
        """Return the jobs as a submission wants them: an iterable for a file, an async iterable for a pipe."""
        return _Rows(self) if self.source.is_rereadable else self._stream()

    def read(self) -> Iterator[JobSpec[Any]]:
        """Read the source."""
        return self.source.jobs(self._skip if self._skips else refuse, validate=self.total is None)

    def taken(self) -> None:
        """Count a job that the submission has taken."""
        self.count += 1
        self.begun.set()
        if self.count % _ROWS_A_REPORT == 0:
            self.on_count(self.count)

    def conclude(self) -> None:
        """Say how many rows were passed over, and whether there were any at all."""
        if self.skipped > _BAD_ROWS_TOLD:
            say(f"skipped: {self.skipped:,} bad rows in all")
        if not self.count:
            say(f"{self.source.name} holds no jobs: the batch is empty")

    async def _stream(self) -> AsyncIterator[JobSpec[Any]]:
        async for job in in_thread(self.read()):
            self.taken()
            yield job

    def _skip(self, error: InputError) -> None:
        self.skipped += 1
        if self.skipped <= _BAD_ROWS_TOLD:
            say(f"skipped: {error}")


@dataclass(frozen=True, slots=True)
class _Rows:
    feed: Feed

    def __iter__(self) -> Iterator[JobSpec[Any]]:
        for job in self.feed.read():
            self.feed.taken()
            yield job

    def __length_hint__(self) -> int:
        return NotImplemented if self.feed.total is None else self.feed.total


def _check(source: Source, progress: Progress) -> int:
    """Read all rows and send nothing; returns how many jobs there are."""
    count = 0
    for count, _ in enumerate(source.jobs(refuse), start=1):  # returned below
        if count % _ROWS_A_REPORT == 0:
            progress.count("rows checked", count)
    return count


def _is_same_file(path: str, out: str) -> bool:
    return Path(path).exists() and Path(out).exists() and os.path.samefile(path, out)  # noqa: PTH121
