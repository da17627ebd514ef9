"""How fast a batch goes: what was seen of it lately, or all of its life where nobody has looked before."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from protocol.batches import BatchStatus

# A rate is of the last so many s, and of no fewer than the least: a worker's results come in groups.
_WINDOW = 30.0
_LEAST = 2.0
_MOST_BATCHES = 1000


class Speed(NamedTuple):
    """Results a second, and the time to the last one at that rate, s; None where nobody can tell."""

    rate: float | None
    remaining: float | None


class Pace:
    """Remember how far batches were."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    def see(self, status: BatchStatus, now: float) -> Speed:
        """Take note of how far a batch is now (Unix s on Redis' clock), and tell its speed."""
        if status.finished_at is not None:
            self._seen.pop(status.batch_id, None)
            return Speed(_rate(status.done, status.finished_at - status.created_at), None)
        seen = self._seen.setdefault(status.batch_id, deque())
        self._seen.move_to_end(status.batch_id)
        if len(self._seen) > _MOST_BATCHES:
            self._seen.popitem(last=False)
        while len(seen) > 1 and seen[1][0] <= now - _WINDOW:
            seen.popleft()
        if not seen or now - seen[-1][0] >= 0.5:
            seen.append((now, status.done))
        since, done = seen[0]
        if now - since < _LEAST:
            since, done = status.created_at, 0
        rate = _rate(status.done - done, now - since)
        return Speed(rate, (status.total - status.done) / rate if rate else None)


def _rate(count: int, elapsed: float) -> float | None:
    return count / elapsed if elapsed > 0 else None
