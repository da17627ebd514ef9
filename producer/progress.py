"""How a batch is getting on, while it does: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar

from producer.durations import seconds
from producer.summary import LABELS, Tally
from protocol.batches import STATUSES

# People read no faster than this, s; a log is read later, and need not be long.
_LIVE_INTERVAL = 0.1
_PLAIN_INTERVAL = 10.0


class Progress(Protocol):
    """What shows progress; a context manager around the work."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was found."""
        ...

    def count(self, what: str, count: int) -> None:
        """Show how far a file is: so many rows checked, so many jobs sent."""
        ...

    def update(self, tally: Tally, total: int | None, running: int | None = None, workers: int | None = None) -> None:
        """Show a batch's counts: results so far, of how many (if that is known), the jobs that run, live workers."""
        ...


def make_progress(console: Console, *, live: bool) -> Progress:
    """Choose how to show progress: a live bar, or plain lines."""
    return LiveProgress(console) if live else PlainProgress(console)


class LiveProgress:
    """A bar with counts per status; there is none until there is something to show.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            SpinnerColumn(finished_text="[green]✓[/]" if console.encoding.startswith("utf") else "*"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            console=console,
            expand=True,
            refresh_per_second=10,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, counts="")
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def count(self, what: str, count: int) -> None:
        """Show how far a file is."""
        self._bar.start()
        self._bar.update(self._task, description=what, completed=count, total=None)

    def update(self, tally: Tally, total: int | None, running: int | None = None, workers: int | None = None) -> None:
        """Show a batch's counts; most calls cost nothing."""
        now = time.monotonic()
        if now - self._shown_at < _LIVE_INTERVAL:
            return
        self._shown_at = now
        self._bar.start()
        self._bar.update(
            self._task,
            description="jobs",
            completed=tally.total,
            total=total,
            counts=_colourful(tally, running, workers),
        )


class PlainProgress:
    """A line every ten seconds.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._shown_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def count(self, what: str, count: int) -> None:
        """Say how far a file is."""
        if self._is_due():
            self._say(f"{count:,} {what}")

    def update(self, tally: Tally, total: int | None, running: int | None = None, workers: int | None = None) -> None:
        """Say a batch's counts."""
        if not self._is_due():
            return
        of = "" if total is None else f" of {total:,}"
        parts = [
            f"{tally.total:,}{of} done",
            *_plain(tally, running, workers),
            seconds(time.monotonic() - self._started),
        ]
        self._say(" · ".join(parts))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._shown_at < _PLAIN_INTERVAL:
            return False
        self._shown_at = now
        return True

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _plain(tally: Tally, running: int | None, workers: int | None) -> list[str]:
    parts = [f"{tally.counts[status]:,} {LABELS[status][0]}" for status in STATUSES if tally.counts[status]]
    if running is not None:
        parts.append(f"{running:,} running")
    if workers is not None:
        parts.append(_crew(workers))
    return parts


def _crew(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers or 'no'} workers"


def _colourful(tally: Tally, running: int | None, workers: int | None) -> str:
    parts = []
    for status in STATUSES:
        if tally.counts[status]:
            label, colour = LABELS[status]
            parts.append(f"[{colour}]{tally.counts[status]:,} {label}[/]")
    if running:
        parts.append(f"[cyan]{running:,} running[/]")
    if workers is not None:
        parts.append(f"[{'dim' if workers else 'red'}]{_crew(workers)}[/]")
    return " ".join(parts)
