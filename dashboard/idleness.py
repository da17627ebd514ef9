"""How much of this machine nobody uses: what may be taken without taking it from the workers that run beside us."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
# A measurement over less than this, s, says little.
_SHORTEST = 0.2


class Idleness:
    """Measure how many cores have been idle lately; where the system does not say it in Linux' way, none."""

    def __init__(self) -> None:
        self._measured_at = time.monotonic()
        self._idle = _idle_seconds()
        self._cores = 0.0

    def cores(self) -> float:
        """Tell how many cores were idle since this was measured last."""
        now = time.monotonic()
        if now - self._measured_at >= _SHORTEST:
            idle = _idle_seconds()
            self._cores = max(0.0, (idle - self._idle) / (now - self._measured_at))
            self._measured_at, self._idle = now, idle
        return self._cores


def _idle_seconds() -> float:
    try:
        fields = _STAT.read_text().partition("\n")[0].split()
        return int(fields[4]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
