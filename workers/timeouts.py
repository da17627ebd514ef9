"""The one timeout wrapper: run a coroutine under a deadline, and say what it ended in.

Workers run every job through `Run`; `with_timeout` and `with_result` are the same wrapper for local calls. What a run ends
in is judged in one place, `Run._judge`, by the clock and by what was asked of the run, never by the type of an exception: a
library's TimeoutError looks like ours, and a job may swallow our cancellation or raise another error while it cleans up.

A run ends at most `limit + grace` after its start, as long as the job gives the event loop back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocol.results import Phase, Stopped

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Returned:
    """The coroutine returned in time."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The coroutine raised in time, whatever it raised."""

    error: BaseException


@dataclass(frozen=True, slots=True)
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


class Run:
    """One run of one coroutine, in a task of its own.

    Args:
        call: The coroutine; it is always awaited or closed.
        limit: Seconds that it may run.
        grace: Seconds that it has for cleanup once it was cancelled; then it is abandoned.
        name: For messages.
        phase: Which clock `limit` is.
        on_end: Called once, with this run, when its outcome is known; must not raise.
        on_start: Called in the run's own task before the coroutine's first step; must not raise.
    """

    __slots__ = (
        "_asked", "_call", "_deadline", "_expired", "_grace", "_on_end", "_on_start", "_timer",
        "finished", "limit", "name", "outcome", "phase", "started", "task",
    )  # fmt: skip

    def __init__(
        self,
        call: Coroutine[Any, Any, Any],
        *,
        limit: float,
        grace: float,
        name: str,
        on_end: Callable[[Run], None],
        on_start: Callable[[Run], None] | None = None,
        phase: Phase = "running",
    ) -> None:
        self._call = call
        self.limit = limit
        self._grace = grace
        self.name = name
        self.phase: Phase = phase
        self._on_end = on_end
        self._on_start = on_start
        self._asked: Cancelled | HandedBack | None = None
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self.outcome: Outcome | None = None
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self.finished = self.started
        self._deadline = self.started + limit
        self.task = loop.create_task(self._body())

    @property
    def deadline(self) -> float:
        """When the time is up, on the loop's clock."""
        return self._deadline

    def cancel(self, reason: str) -> None:
        """Stop the run: it ends in `Cancelled`."""
        self._ask(Cancelled(reason))

    def hand_back(self) -> None:
        """Stop the run: it ends in `HandedBack`, unless a cancel was requested before."""
        self._ask(HandedBack())

    def _ask(self, asked: Cancelled | HandedBack) -> None:
        if self.outcome is not None or isinstance(self._asked, Cancelled):
            return
        first = self._asked is None
        self._asked = asked
        if self._timer is None:
            # Not even entered: a cancel would end the task before it takes the coroutine in its hands.
            self._call.close()
            self.task.cancel()
            self._end(Raised(asyncio.CancelledError()))
        elif first and not self._expired:
            self._stop()

    async def _body(self) -> None:
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self._deadline = self.started + self.limit
        self._timer = loop.call_at(self._deadline, self._expire)
        if self._on_start is not None:
            self._on_start(self)
        own: Outcome
        try:
            own = Returned(await self._call)
        except GeneratorExit:  # the loop is gone, and with it whoever waits for us
            raise
        except BaseException as error:  # noqa: BLE001  # the job's boundary: SystemExit would end the whole worker
            own = Raised(error)
        self._end(own)

    def _expire(self) -> None:
        self._expired = True
        self._stop()

    def _stop(self) -> None:
        assert self._timer is not None  # noqa: S101  # set by `_body`, before anything can stop it
        self._timer.cancel()
        self.task.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._grace, self._abandon)

    def _abandon(self) -> None:
        logger.warning(
            "%s ignores its cancellation; it is left behind after %g s of grace",
            self.name, self._grace, extra={"event": "job.abandoned", "job": self.name},
        )  # fmt: skip
        _left_behind.add(self)
        self.finished = asyncio.get_running_loop().time()
        self._settle(self._asked or TimedOut(self.limit, self.phase, "abandoned"))

    def _end(self, own: Outcome) -> None:
        now = asyncio.get_running_loop().time()
        if self.outcome is not None:
            _left_behind.discard(self)
            logger.warning(
                "%s, left behind, ended %.3f s after its start",
                self.name, now - self.started, extra={"event": "job.abandoned_end", "job": self.name},
            )  # fmt: skip
            return
        if self._timer is not None:
            self._timer.cancel()
        self.finished = now
        self._settle(self._judge(own))

    def _judge(self, own: Outcome) -> Outcome:
        """Say what the run ends in; the first that holds wins."""
        if self._asked is not None:
            return self._asked
        if self._expired:
            return TimedOut(self.limit, self.phase, "cancelled")
        if self.finished >= self._deadline:
            return TimedOut(self.limit, self.phase, "late")
        return own

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._on_end(self)


# The loop holds tasks weakly, so what is left behind is held here until it ends.
_left_behind: set[Run] = set()
