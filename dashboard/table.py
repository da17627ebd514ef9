"""A batch's results by the page: what to show is found in the digest, and the few rows of it in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.digest import Digest
from dashboard.fingerprints import fingerprint
from dashboard.follower import Follower
from dashboard.words import LABELS, glimpse, line
from producer.producer import Producer
from producer.records import read_results
from protocol.batches import STATUSES
from protocol.results import CancelledResult, FailureResult, LostResult, Result, SuccessResult, TimeoutResult

PAGE = 25
SLOWEST = "slowest"
KEY = "key:"
"""Before a part of keys: results whose job's key holds it."""

# More rows of one part are not looked for.
MOST_FOUND = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One result as its row tells it."""

    result: Result[Any]
    recorded_at: float

    @property
    def label(self) -> str:
        """How it ended, for people."""
        return LABELS[self.result.status]

    @property
    def details(self) -> str:
        """What it ended with."""
        return details(self.result)

    @property
    def wait(self) -> float | None:
        """How long it waited for its start, s."""
        started_at, enqueued_at = self.result.started_at, self.result.enqueued_at
        return None if started_at is None or enqueued_at is None else started_at - enqueued_at


@dataclass(frozen=True, slots=True)
class Table:
    """One page of results, newest first.

    Args:
        show: A status, a group's id, `slowest`, `key:` and a part of keys, or nothing: which results there are.
        title: That in words.
        number: Of the page, from 0.
        total: How many results there are, on all pages.
        rows: This page's.
    """

    show: str
    title: str
    number: int
    total: int
    rows: list[Row]

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // PAGE))


async def read_table(producer: Producer, follower: Follower, show: str, number: int) -> Table:
    """Read one page.

    Raises:
        ProtocolError: If the stream is not ours.
    """
    digest = follower.digest
    title, rows = _choose(digest, show)
    number = max(0, min(number, -(-len(rows) // PAGE) - 1))
    end = len(rows) - number * PAGE
    shown = [rows[at] for at in range(end - 1, max(-1, end - 1 - PAGE), -1)]
    positions = [digest.index.position(row) for row in shown]
    found = await read_results(producer.redis, follower.batch_id, positions)
    told = [
        Row(result, position.recorded_at)
        for position, result in zip(positions, found, strict=True)
        if result is not None
    ]
    return Table(show, title, number, len(rows), told)


def details(result: Result[Any]) -> str:
    """Write in a line what a job ended with."""
    if isinstance(result, SuccessResult):
        return glimpse(result.value)
    if isinstance(result, TimeoutResult):
        return f"after {result.limit:g} s {fingerprint(result).kind}"
    if isinstance(result, FailureResult):
        return line(f"{result.error_type}: {glimpse(result.message)}")
    if isinstance(result, CancelledResult | LostResult):
        return line(result.reason)
    return ""


def _choose(digest: Digest, show: str) -> tuple[str, Sequence[int]]:
    """Find the rows that are asked for, oldest first, and what they have in common."""
    if show in STATUSES:
        return LABELS[show], digest.rows_of[show]
    if show == SLOWEST:
        return "the slowest", digest.slowest()[::-1]
    if show.startswith(KEY):
        return f"key has “{show.removeprefix(KEY)}”", digest.index.keys.find(show.removeprefix(KEY), MOST_FOUND)
    group = digest.group(show) if show else None
    if group is not None:
        mark = group.fingerprint
        return f"{LABELS[mark.status]}: {mark.kind}{': ' if mark.pattern else ''}{mark.pattern}", group.rows
    return "all", range(len(digest.index))
