"""`collect --watch`: a batch on one screen: how far, how fast, what it waits for, what went wrong."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from producer.pace import Pace
from producer.pictures.durations import seconds
from producer.pictures.summary import LABELS, Failures, Tally
from producer.progress import Scene, speed_words
from protocol.batches import STATUSES
from protocol.errors import shorten
from protocol.running import RunningJob

_INTERVAL = 0.2
_BAR = 30
_AT_WORK = 8
_FAILURES = 5


class WatchProgress:
    """Draw the screen anew a few times a second, below what was there before.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._pace = Pace()
        self._began = time.monotonic()
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def count(self, what: str, count: int) -> None:
        """Show how far a file is."""
        self._live.update(Text(f"{count:,} {what}"), refresh=True)

    def update(self, tally: Tally, scene: Scene) -> None:
        """Draw the batch; most calls cost nothing."""
        now = time.monotonic()
        if now - self._shown_at < _INTERVAL:
            return
        self._shown_at = now
        self._pace.see(tally.total, now)
        self._live.update(draw(tally, scene, self._pace, now - self._began), refresh=True)


def draw(tally: Tally, scene: Scene, pace: Pace, elapsed: float) -> RenderableType:
    """Draw a batch."""
    of = "" if scene.total is None else f" of {scene.total:,}"
    head = [f"{tally.total:,}{of} done", f"{seconds(elapsed)}", *speed_words(pace, tally, scene)]
    parts: list[RenderableType] = [Text(" · ".join(head), "bold")]
    if scene.total:
        parts.append(ProgressBar(total=scene.total, completed=tally.total))
    parts += [Text(), _counts(tally, scene)]
    if tally.durations.count:
        parts.append(_run_times(tally))
    if scene.slowest:
        parts += [Text(), draw_running(scene.slowest[:_AT_WORK])]
    kinds = tally.failures()[:_FAILURES]
    if kinds:
        parts += [Text("\nfailures", "bold"), *map(_failure, kinds)]
    return Group(*parts)


def draw_running(jobs: tuple[RunningJob, ...]) -> Table:
    """Draw the jobs at work, each with how much of its time it has had."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("at work", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("", width=_BAR // 2)
    table.add_column("time", no_wrap=True)
    table.add_column("function", no_wrap=True, overflow="ellipsis")
    table.add_column("worker", no_wrap=True, overflow="ellipsis")
    table.add_column("says", ratio=1, no_wrap=True, overflow="ellipsis")
    for job in jobs:
        said = [f"{100 * job.progress:.0f} %"] if job.progress is not None else []
        table.add_row(
            Text(shorten(job.key, 60) if job.key else f"job {job.index}"),
            _bar(min(1.0, job.elapsed / job.limit), "red" if job.elapsed > 0.8 * job.limit else "cyan", _BAR // 2),
            f"{seconds(job.elapsed)} of {seconds(job.limit)}",
            Text(job.function),
            Text(job.worker),
            Text(" ".join([*said, job.note]).strip()),
        )
    return table


def _failure(kind: Failures) -> Text:
    return Text(f"{kind.count:>9,}  {kind}", no_wrap=True, overflow="ellipsis")


def _counts(tally: Tally, scene: Scene) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(width=_BAR)
    whole = max(1, tally.total)
    for status in STATUSES:
        count = tally.counts[status]
        label, colour = LABELS[status]
        if count or status in ("success", "timeout", "failure"):
            table.add_row(Text(label, colour if count else "dim"), f"{count:,}", _bar(count / whole, colour, _BAR))
    if scene.running is not None:
        table.add_row(Text("running", "cyan"), f"{scene.running:,}", "")
    if scene.workers is not None:
        table.add_row(Text("workers", "dim" if scene.workers else "bold red"), f"{scene.workers:,}", "")
    return table


def _run_times(tally: Tally) -> Text:
    times = tally.durations
    told = {"p50": times.percentile(0.5), "p95": times.percentile(0.95), "max": times.longest}
    return Text("run time  " + " · ".join(f"{name} {seconds(time)}" for name, time in told.items()))


def _bar(share: float, colour: str, width: int) -> Text:
    """Draw a share; whatever is more than nothing is seen."""
    full = min(width, round(share * width)) or (1 if share else 0)
    return Text.assemble(("━" * full, colour), ("─" * (width - full), "dim"))
