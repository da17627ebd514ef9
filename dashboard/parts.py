"""The parts of a page that change while one looks: each is drawn anew only if what it shows may have changed.

A page draws all of its parts; its live stream draws those that changed, and sends what differs from what it sent last.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from dashboard.digest import Digest
from dashboard.drawings import describe, histogram, stack, stream
from dashboard.follower import Follower
from dashboard.rendering import render
from dashboard.search import running_with, searched
from dashboard.state import State
from dashboard.stragglers import stragglers
from dashboard.table import KEY, PAGE, read_table
from protocol.batches import STATUSES

Draw = Callable[[], Awaitable[str]]

# What is drawn from many results is not drawn again sooner than this, s: drawing takes some 25 ms, which a batch that
# runs may need for itself.
_PAUSE, _PAUSE_AT_THE_END = 5.0, 1.0
_MOST_CAUSES = 6


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Args:
        name: Its element's id.
        version: What tells whether it may have changed; None: it always may.
        draw: How it is drawn.
        pause: The least time between two drawings, s.
    """

    name: str
    version: Hashable
    draw: Draw
    pause: float = 0.0


class Parts:
    """What was drawn for one viewer."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[Hashable, float]] = {}
        self._drawn: dict[str, str] = {}

    async def changed(self, parts: list[Part]) -> dict[str, str]:
        """Draw what may have changed; returns what did."""
        changes = {}
        for part in parts:
            if not self._is_due(part):
                continue
            self._versions[part.name] = (part.version, time.monotonic())
            html = await part.draw()
            if self._drawn.get(part.name) != html:
                changes[part.name] = self._drawn[part.name] = html
        return changes

    def _is_due(self, part: Part) -> bool:
        if part.name not in self._versions or part.version is None:
            return True
        version, drawn_at = self._versions[part.name]
        return part.version != version and time.monotonic() - drawn_at >= part.pause


def batch_parts(state: State, follower: Follower, show: str, page: int, csrf: str) -> list[Part]:
    """Name the parts of a batch's page.

    Args:
        state: The dashboard's.
        follower: The batch's.
        show: Which results its table shows.
        page: And which page of them.
        csrf: The viewer's token if they may act, else empty.
    """
    digest = follower.digest
    read = (digest.count, follower.is_read, follower.problem)
    shared: dict[str, Any] = {"batch": follower.status, "digest": digest, "csrf": csrf, "show": show}

    def part(name: str, version: Hashable, context: Callable[[], dict[str, Any]]) -> Part:
        async def draw() -> str:
            return render(f"batch/{name}.html", **shared, **context())

        return Part(name, version, draw, pause)

    pause = _PAUSE_AT_THE_END if follower.status.complete else _PAUSE

    async def draw_results() -> str:
        table = await read_table(state.producer, follower, show, page)
        found: dict[str, Any] = {"searched": None, "running": ()}
        if show.startswith(KEY):
            found = {"searched": searched(follower), "running": running_with(follower, show.removeprefix(KEY))[:PAGE]}
        return render("batch/results.html", **shared, table=table, statuses=STATUSES, **found)

    unsuccessful = [status for status in STATUSES[1:] if getattr(follower.status, status)]
    may_do = (follower.status.complete, *unsuccessful)
    return [
        *([part("actions", may_do, lambda: {"unsuccessful": unsuccessful})] if csrf else []),
        part("summary", None, lambda: _summary(state, follower)),
        part("stragglers", None, lambda: {"stragglers": stragglers(follower.running, digest)}),
        part("causes", read, lambda: {"causes": _causes(digest)}),
        part("stream", read, lambda: {"stream": stream(digest.lanes)}),
        part("times", read, lambda: _times(follower)),
        part("failures", read, lambda: {"groups": digest.groups("failure")}),
        Part("results", read if page == 0 else "still", draw_results, pause),
    ]


def _summary(state: State, follower: Follower) -> dict[str, Any]:
    status = follower.status
    return {
        "follower": follower,
        "stack": stack(status),
        "stack_in_words": describe(status),
        "speed": follower.speed,
        "now": state.producer.clock.now(),
    }


def _causes(digest: Digest) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Count results by status, and by cause within it, most frequent first."""
    kinds: dict[str, Counter[str]] = {status: Counter() for status in STATUSES}
    for group in digest.groups():
        kinds[group.fingerprint.status][group.fingerprint.kind] += group.count
    found = [(status, digest.counts[status], kinds[status].most_common(_MOST_CAUSES)) for status in STATUSES]
    return [cause for cause in found if cause[1]]


def _times(follower: Follower) -> dict[str, Any]:
    runs, waits = follower.digest.runs, follower.digest.waits
    return {"drawn": [("Run time", runs, histogram(runs)), ("Wait in the queue", waits, histogram(waits))]}
