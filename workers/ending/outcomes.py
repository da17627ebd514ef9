"""What a run ends in, as `workers.timeouts` judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from protocol.results import Phase, Stopped


# Not frozen: one of these is made for every job, and a frozen one takes three times as long.
@dataclass(slots=True)
class Returned:
    """The coroutine returned in time."""

    value: Any


@dataclass(slots=True)
class Raised:
    """The coroutine raised in time, whatever it raised."""

    error: BaseException


@dataclass(slots=True)
class TimedOut:
    """Our deadline passed."""

    limit: float
    phase: Phase
    stopped: Stopped


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancel was requested."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker is shutting down, or has lost its lease: there is no result, the job runs again elsewhere."""


Outcome: TypeAlias = Returned | Raised | TimedOut | Cancelled | HandedBack
