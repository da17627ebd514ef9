"""What went wrong, said the same way each time: a kind of error, its message without what differs between jobs."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from protocol.results import PHASES, CancelledResult, FailureResult, LostResult, Result, TimeoutResult

# A message is compared by its beginning; more of it would only tell apart what belongs together.
_LENGTH = 200
# In this order: an id holds numbers, a URL may hold both.
_VARIABLE = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE), "URL"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "UUID"),
    (re.compile(r"\b0x[0-9a-f]+\b|\b(?=[a-f]*[0-9])[0-9a-f]{12,}\b", re.IGNORECASE), "HEX"),
    (re.compile(r"\d+(?:[.,]\d+)*"), "#"),
)


class Fingerprint(NamedTuple):
    """How a job ended: its status, the kind of error or the clock, and the message without what varies."""

    status: str
    kind: str
    pattern: str = ""

    @property
    def id(self) -> str:
        """A short name for it, the same in every process."""
        return sha256("\0".join(self).encode(errors="replace")).hexdigest()[:12]


def fingerprint(result: Result[Any]) -> Fingerprint:
    """Tell what a result has in common with others of its kind."""
    if isinstance(result, TimeoutResult):
        stopped = "" if result.stopped == "not started" else f", {result.stopped}"
        return Fingerprint("timeout", PHASES[result.phase] + stopped)
    if isinstance(result, FailureResult):
        return Fingerprint("failure", result.error_type, normalise(result.message))
    if isinstance(result, CancelledResult):
        return Fingerprint("cancelled", normalise(result.reason) or "on request")
    if isinstance(result, LostResult):
        return Fingerprint("lost", normalise(result.reason))
    return Fingerprint("success", "")


def normalise(message: str) -> str:
    """Leave of a message's first line what does not differ from job to job."""
    return _normalise(message.strip().partition("\n")[0][:_LENGTH])


@lru_cache(1024)
def _normalise(line: str) -> str:
    for variable, word in _VARIABLE:
        line = variable.sub(word, line)
    return line
