"""How fast something goes lately, and how long the rest takes at that rate."""

from __future__ import annotations

from collections import deque

# A rate is that of the last so many s, and of no fewer than the least: results come in groups.
_WINDOW = 15.0
_LEAST = 1.0
# Looks that are nearer to one another than this, s, count as one.
_STEP = 0.25


class Pace:
    """Remember how far a batch was.

    Attributes:
        rate: Results a second; None while nobody can tell.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.rate: float | None = None

    def see(self, done: int, now: float) -> float | None:
        """Take note of how far it is now, by a clock that does not jump, s; returns the rate."""
        seen = self._seen
        while len(seen) > 1 and seen[1][0] <= now - _WINDOW:
            seen.popleft()
        if not seen or now - seen[-1][0] >= _STEP:
            seen.append((now, done))
        since, before = seen[0]
        if now - since >= _LEAST:
            self.rate = max(0, done - before) / (now - since)
        return self.rate

    def left(self, jobs: int) -> float | None:
        """Say how long so many more results take, s; None while nobody can tell."""
        return jobs / self.rate if self.rate else None
