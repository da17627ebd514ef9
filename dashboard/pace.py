"""How fast batches go: what was seen of them lately, or all of their lives where nobody has looked before."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from producer.pace import Pace
from protocol.batches import BatchStatus

_MOST_BATCHES = 1000


class Speed(NamedTuple):
    """Results a second, and the time to the last one at that rate, s; None where nobody can tell."""

    rate: float | None
    remaining: float | None


class Paces:
    """Remember how far batches were."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, Pace] = OrderedDict()

    def see(self, status: BatchStatus, now: float) -> Speed:
        """Take note of how far a batch is now (Unix s on Redis' clock), and tell its speed."""
        if status.finished_at is not None:
            self._seen.pop(status.batch_id, None)
            return Speed(_rate(status.done, status.finished_at - status.created_at), None)
        pace = self._seen.setdefault(status.batch_id, Pace())
        self._seen.move_to_end(status.batch_id)
        if len(self._seen) > _MOST_BATCHES:
            self._seen.popitem(last=False)
        rate = pace.see(status.done, now)
        if rate is None:
            rate = _rate(status.done, now - status.created_at)
        return Speed(rate, (status.total - status.done) / rate if rate else None)


def _rate(count: int, elapsed: float) -> float | None:
    return count / elapsed if elapsed > 0 else None
