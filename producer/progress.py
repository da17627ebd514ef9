"""How a batch is getting on, while it does: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from producer.overview.running import SLOWEST_TOLD
from producer.pace import Pace
from producer.pictures.durations import rate_words, seconds
from producer.pictures.summary import LABELS, Tally
from protocol.batches import STATUSES
from protocol.errors import shorten
from protocol.running import RunningJob

# People read no faster than this, s; a log is read later, and need not be long.
_LIVE_INTERVAL = 0.1
_PLAIN_INTERVAL = 10.0
_SLOWEST = 3
_LONGEST_KEY = 60


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a batch beside its results; None is unknown.

    Args:
        total: How many jobs it has.
        running: How many of them are with a worker.
        workers: How many workers are alive.
        slowest: The jobs that have been at work for the longest time.
    """

    total: int | None = None
    running: int | None = None
    workers: int | None = None
    slowest: tuple[RunningJob, ...] = ()


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

    def update(self, tally: Tally, scene: Scene) -> None:
        """Show how a batch is getting on."""
        ...


def make_progress(console: Console, *, live: bool) -> Progress:
    """Choose how to show progress: a live bar, or plain lines."""
    return LiveProgress(console) if live else PlainProgress(console)


class LiveProgress:
    """A bar; below it counts per status, and the jobs that are slowest. There is none until there is something to show.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bar = _BarAndLines(
            SpinnerColumn(finished_text="[green]✓[/]" if console.encoding.startswith("utf") else "*"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[speed]}"),
            console=console,
            expand=True,
            refresh_per_second=10,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, speed="")
        self._pace = Pace()
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

    def update(self, tally: Tally, scene: Scene) -> None:
        """Show a batch's counts; most calls cost nothing."""
        now = time.monotonic()
        if now - self._shown_at < _LIVE_INTERVAL:
            return
        self._shown_at = now
        self._pace.see(tally.total, now)
        self._bar.lines = [_colourful(tally, scene), *_slow_lines(scene.slowest)]
        self._bar.start()
        self._bar.update(
            self._task,
            description="jobs",
            completed=tally.total,
            total=scene.total,
            speed=" · ".join(speed_words(self._pace, tally, scene)),
        )


class _BarAndLines(Bar):
    lines: Iterable[Text] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from self.lines


class PlainProgress:
    """A line every ten seconds.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace()
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

    def update(self, tally: Tally, scene: Scene) -> None:
        """Say a batch's counts."""
        self._pace.see(tally.total, time.monotonic())
        if not self._is_due():
            return
        of = "" if scene.total is None else f" of {scene.total:,}"
        parts = [
            f"{tally.total:,}{of} done",
            *_plain(tally, scene),
            seconds(time.monotonic() - self._started),
            *speed_words(self._pace, tally, scene),
        ]
        if scene.slowest:
            parts.append(f"slowest: {', '.join(map(at_work, scene.slowest[:_SLOWEST]))}")
        self._say(" · ".join(parts))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._shown_at < _PLAIN_INTERVAL:
            return False
        self._shown_at = now
        return True

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def speed_words(pace: Pace, tally: Tally, scene: Scene) -> list[str]:
    """Say how fast it goes, and how long the rest takes: at that rate, or until the slowest jobs' time is up."""
    told = [] if pace.rate is None else [rate_words(pace.rate)]
    if scene.total is None or not tally.total:
        return told
    open_jobs = scene.total - tally.total
    left = pace.left(open_jobs)
    # One that is with a worker, and waits there for a process, is not told of: then nobody knows.
    if open_jobs and open_jobs == scene.running and len(scene.slowest) >= min(open_jobs, SLOWEST_TOLD):
        longest = max(job.limit - job.elapsed for job in scene.slowest)
        if left is None or longest > left:
            return [*told, f"{left_words(max(0.0, longest))} left at most"]
    return told if left is None else [*told, f"{left_words(left)} left"]


def left_words(left: float) -> str:
    """Write a time that nobody knows so exactly: `7 s`, `4 min 10 s`."""
    return f"{left:.0f} s" if left < 59.5 else seconds(left)


def at_work(job: RunningJob) -> str:
    """Say in a few words which job is at work, for how long, and how far it says it is."""
    name = shorten(job.key, _LONGEST_KEY) if job.key else f"job {job.index}"
    progress = f", {100 * job.progress:.0f} %" if job.progress is not None else ""
    note = f", {job.note}" if job.note else ""
    return f"{name} {seconds(job.elapsed)} of {seconds(job.limit)}{progress}{note}"


def _slow_lines(jobs: tuple[RunningJob, ...]) -> list[Text]:
    heads = ("  at work  ", *["           "] * _SLOWEST)
    return [
        Text.assemble((head, "dim"), at_work(job), no_wrap=True, overflow="ellipsis")
        for head, job in zip(heads, jobs[:_SLOWEST], strict=False)
    ]


def _plain(tally: Tally, scene: Scene) -> list[str]:
    parts = [f"{tally.counts[status]:,} {LABELS[status][0]}" for status in STATUSES if tally.counts[status]]
    if scene.running is not None:
        parts.append(f"{scene.running:,} running")
    if scene.workers is not None:
        parts.append(_crew(scene.workers))
    return parts


def _crew(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers or 'no'} workers"


def _colourful(tally: Tally, scene: Scene) -> Text:
    parts = [
        (f"{tally.counts[status]:,} {LABELS[status][0]}", LABELS[status][1])
        for status in STATUSES
        if tally.counts[status]
    ]
    if scene.running:
        parts.append((f"{scene.running:,} running", "cyan"))
    if scene.workers is not None:
        parts.append((_crew(scene.workers), "dim" if scene.workers else "red"))
    dotted = [piece for part in parts for piece in (" · ", part)][1:]
    return Text.assemble("  ", *dotted, no_wrap=True, overflow="ellipsis")
