"""What a batch came to: counts, time-outs by phase, failures by error, durations, the slowest keys.

The tally of ten million results takes no more memory than that of ten thousand: durations are counted in a histogram,
of the slowest only a few are kept, and so are kinds of failure.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producer.pictures.durations import Durations, rate_words, seconds
from protocol.batches import STATUSES
from protocol.errors import shorten
from protocol.results import PHASES, FailureResult, Phase, Result, TimeoutResult

LABELS = {
    "success": ("succeeded", "green"),
    "timeout": ("timed out", "yellow"),
    "failure": ("failed", "red"),
    "cancelled": ("cancelled", "magenta"),
    "lost": ("lost", "bright_red"),
}
"""Status -> what people read, and its colour."""

_SLOWEST = 5
_FAILURES_TOLD = 5
# Kinds of failure beyond this many are counted by their error's type alone, beyond twice as many in one.
_KINDS_KEPT = 1000
_MESSAGE_LENGTH = 200
_URL = re.compile(r"\bhttps?://\S+")


@dataclass(slots=True)
class Failures:
    """Failures of one kind: the same type of error, and the same message but for its URLs and numbers."""

    error_type: str
    message: str
    count: int = 0

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}" if self.message else self.error_type


class Tally:
    """Count results as they come."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.phases: Counter[Phase] = Counter()
        self.durations = Durations()
        self._failures: dict[tuple[str, str], Failures] = {}
        self._slowest: list[tuple[float, int, str, str]] = []

    @property
    def total(self) -> int:
        """Results that were counted."""
        return self.counts.total()

    def add(self, result: Result[Any]) -> None:
        """Count one result."""
        self.counts[result.status] += 1
        if isinstance(result, TimeoutResult):
            self.phases[result.phase] += 1
        elif isinstance(result, FailureResult):
            self._add_failure(result.error_type, result.message.strip().partition("\n")[0][:_MESSAGE_LENGTH])
        duration = result.duration
        if duration is not None:
            self.durations.add(duration)
            if len(self._slowest) < _SLOWEST:
                heapq.heappush(self._slowest, self._as_slow(duration, result))
            elif duration > self._slowest[0][0]:
                heapq.heapreplace(self._slowest, self._as_slow(duration, result))

    def failures(self) -> list[Failures]:
        """Return the kinds of failure, most frequent first."""
        return sorted(self._failures.values(), key=lambda kind: -kind.count)

    def slowest(self) -> list[tuple[float, str, str]]:
        """Return the longest runs: duration in s, key, status."""
        return [(duration, key, status) for duration, _, key, status in sorted(self._slowest, reverse=True)]

    def _add_failure(self, error_type: str, message: str) -> None:
        general = _URL.sub("URL", message)
        pattern = re.sub(r"\d+", "#", general)
        kind = self._failures.get((error_type, pattern))
        if kind is None and len(self._failures) >= _KINDS_KEPT:
            pattern = message = "(various messages)"
            if (error_type, pattern) not in self._failures and len(self._failures) >= 2 * _KINDS_KEPT:
                error_type = "(various errors)"
            kind = self._failures.get((error_type, pattern))
        if kind is None:
            kind = self._failures[error_type, pattern] = Failures(error_type, message)
        elif kind.message != message:
            kind.message = general if _URL.sub("URL", kind.message) == general else pattern
        kind.count += 1

    @staticmethod
    def _as_slow(duration: float, result: Result[Any]) -> tuple[float, int, str, str]:
        return duration, -result.index, result.key or f"job {result.index}", result.status


def facts(tally: Tally, total: int, elapsed: float) -> dict[str, Any]:
    """Write the closing summary for programs; arguments as for `summarize`."""
    times = tally.durations
    return {
        "total": total,
        "results": tally.total,
        **{status: tally.counts[status] for status in STATUSES},
        "timeouts": dict(tally.phases),
        "elapsed": round(elapsed, 6),
        "run_time": {
            "p50": round(times.percentile(0.5), 6),
            "p95": round(times.percentile(0.95), 6),
            "max": round(times.longest, 6),
        },
        "failures": [
            {"error_type": kind.error_type, "message": kind.message, "count": kind.count} for kind in tally.failures()
        ],
        "slowest": [{"key": key, "duration": took, "status": status} for took, key, status in tally.slowest()],
    }


def summarize(tally: Tally, total: int, elapsed: float) -> RenderableType:
    """Draw the closing table.

    Args:
        tally: The results.
        total: Jobs of the batch.
        elapsed: How long it took, s.
    """
    return Group(_outcomes(tally, total, elapsed), *_durations(tally))


def _outcomes(tally: Tally, total: int, elapsed: float) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("outcome", no_wrap=True)
    table.add_column("jobs", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("of which", overflow="fold")
    for status in STATUSES:
        count = tally.counts[status]
        label, colour = LABELS[status]
        if count or status in ("success", "timeout", "failure"):
            table.add_row(
                Text(label, colour if count else "dim"), f"{count:,}", _share(count, total), _details(tally, status)
            )
    if tally.total < total:
        table.add_row(Text("no result yet", "dim"), f"{total - tally.total:,}", _share(total - tally.total, total), "")
    table.add_section()
    rate = f", {rate_words(tally.total / elapsed)}" if elapsed >= 1 and tally.total else ""
    table.add_row("all", f"{total:,}", "", f"in {seconds(elapsed)}{rate}")
    return table


def _details(tally: Tally, status: str) -> Text:
    if status == "timeout":
        return Text(", ".join(f"{count:,} {PHASES[phase]}" for phase, count in tally.phases.most_common()))
    if status != "failure":
        return Text()
    kinds = tally.failures()
    told = [f"{kind.count:,}x {shorten(str(kind), 120)}" for kind in kinds[:_FAILURES_TOLD]]
    rest = kinds[_FAILURES_TOLD:]
    if rest:
        told.append(f"{sum(kind.count for kind in rest):,}x {len(rest):,} other kinds of failure")
    return Text("\n".join(told))


def _durations(tally: Tally) -> Iterator[RenderableType]:
    durations = tally.durations
    if not durations.count:
        return
    p50, p95 = durations.percentile(0.5), durations.percentile(0.95)
    yield Text(f"\nrun time   p50 {seconds(p50)} · p95 {seconds(p95)} · max {seconds(durations.longest)}")
    for rank, (duration, key, status) in enumerate(tally.slowest()):
        label, colour = LABELS[status]
        yield Text.assemble(
            f"{'' if rank else 'slowest':<11}{seconds(duration):>9}  ",
            (f"{label:<9}", colour),
            f"  {shorten(key, 100)}",
            no_wrap=True,
            overflow="ellipsis",
        )


def _share(count: int, total: int) -> str:
    """Write a share such that only all is 100 % and only none is 0 %."""
    if not total or not count:
        return "-"
    percent = 100 * count / total
    if count < total:
        percent = min(99.9, max(0.1, percent))
    return f"{percent:.1f} %" if percent < 100 else "100 %"
