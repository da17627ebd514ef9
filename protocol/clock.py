"""Redis' clock, which all times in Redis are told by."""

from __future__ import annotations

import time


class RedisClock:
    """Redis' time, told from the local monotonic clock and the times in Redis' replies."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._error = float("inf")
        self._read_at = time.monotonic()

    def now(self) -> float:
        """Unix seconds on Redis' clock."""
        return self._offset + time.monotonic()

    def at(self, monotonic: float) -> float:
        """Translate a reading of `time.monotonic()`."""
        return self._offset + monotonic

    def monotonic(self, seconds: int, microseconds: int) -> float:
        """Translate a time of Redis', as its replies give it, to `time.monotonic()`."""
        return seconds + microseconds / 1e6 - self._offset

    def sync(self, seconds: int, microseconds: int, sent: float, received: float) -> None:
        """Learn from a reply that was asked for and came at these monotonic times.

        The reply's time lies somewhere between the two, so a shorter trip says more; an old reading counts for less as
        the clocks may drift (1 ms in 10 s is generous).
        """
        error = (received - sent) / 2
        self._error += 1e-4 * (received - self._read_at)
        self._read_at = received
        if error <= self._error:
            self._offset = seconds + microseconds / 1e6 - (sent + received) / 2
            self._error = error
