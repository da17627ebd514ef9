"""The one timeout wrapper: run a coroutine under a deadline, and say what it ended in.

Workers run every job through `Run`; `with_timeout` and `with_result` are the same wrapper for local calls. What a run
ends in is judged in one place, `Run._judge`, by the clock and by what was asked of the run, never by the type of an
exception: a library's TimeoutError looks like ours, and a job may swallow our cancellation or raise another error while
it cleans up.

A run ends at most `limit + grace` after its start, as long as the job gives the event loop back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from protocol.results import Phase, Stopped
from workers.ending.outcomes import Cancelled, HandedBack, Outcome, Raised, Returned, TimedOut
from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import UNNAMED

if TYPE_CHECKING:
    from workers.timing.silence import Silence

logger = logging.getLogger(__name__)

# A job that blocks on when it was interrupted is interrupted again this often, s.
_AGAIN = 0.1


class Run:
    """One run of one coroutine. Subclasses say what happens at its `began` and `ended`.

    It has a task to itself from the moment when it first awaits something; by default from the start.

    Args:
        call: The coroutine; it is always awaited or closed.
        limit: Seconds that it may run.
        grace: Seconds that it has for cleanup once it was cancelled; then it is abandoned.
        deadlines: Who watches the clock.
        phase: Which clock `limit` is.
        stopped: How a cancel at the deadline stops what the coroutine stands for.
        has_own_task: Whether it makes a task for itself; else `task` is to be set, and `begin` called in it.
    """

    # What most runs never change stands in the class: setting it for each of them was a tenth of a no-op job.
    phase: Phase = "running"
    stopped: Stopped = "cancelled"
    silence: Silence | None = None
    outcome: Outcome | None = None
    number = UNNAMED
    started = finished = when = deadline = last_moment = 0.0
    task: asyncio.Task[Any]
    _asked: Cancelled | HandedBack | None = None
    _entered = _expired = _interrupted = False
    _context: Context
    _awaited: Any = None

    def __init__(
        self,
        call: Coroutine[Any, Any, Any],
        limit: float,
        grace: float,
        deadlines: Deadlines,
        phase: Phase = "running",
        stopped: Stopped = "cancelled",
        *,
        has_own_task: bool = True,
    ) -> None:
        self.call = call
        self.limit = limit
        self.grace = grace
        self.deadlines = deadlines
        if phase != "running":
            self.phase = phase
        if stopped != "cancelled":
            self.stopped = stopped
        if has_own_task:
            self.task = asyncio.get_running_loop().create_task(self._body())

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return getattr(self.call, "__qualname__", "coroutine")

    @property
    def has_begun(self) -> bool:
        """Whether the coroutine has taken its first step."""
        return self._entered

    @property
    def fields(self) -> dict[str, str]:
        """What to say of it in the fields of log lines."""
        return {"job": self.name}

    @property
    def cancelling(self) -> bool:
        """Whether the coroutine was asked to stop."""
        return self.is_stopping or time.monotonic() >= self.deadline

    @property
    def is_stopping(self) -> bool:
        """Whether its time has come, or it was asked to stop, and what it still has is its grace."""
        return self._expired or self._asked is not None

    def began(self) -> None:
        """Called in the run's own task before the coroutine's first step; must not raise."""

    def ended(self) -> None:
        """Called once, when the outcome is known; must not raise."""

    def cancel(self, reason: str) -> None:
        """Stop the run: it ends in `Cancelled`."""
        self._ask(Cancelled(reason))

    def hand_back(self) -> None:
        """Stop the run: it ends in `HandedBack`, unless a cancel was requested before."""
        self._ask(HandedBack())

    def is_due(self, now: float) -> bool:
        """Whether the time has come."""
        if self.silence is not None:
            self.silence.choose()
        return now >= self.when

    def ring(self) -> None:
        """Take note that the time has come: the deadline's, or after it that of grace."""
        if not self.is_due(self.when):
            self.deadlines.watch(self)
        elif self.is_stopping:
            self._abandon()
        else:
            self._expired = True
            self._stop()

    def interrupted(self, now: float) -> None:
        """Take note that the job is interrupted while it blocks the loop; what it does then has its grace."""
        first = not self._interrupted and not self.is_stopping
        self._expired = self._interrupted = True
        self.when = now + (self.grace if first else _AGAIN)
        if first:
            self.last_moment = self.when
            if self.deadlines.code is not self.call:  # a task of the job's blocks: the job itself must end, too
                self.task.cancel()

    def postpone(self, seconds: float) -> None:
        """Move the clocks, as another job has held the loop."""
        if self.silence is not None:
            self.silence.postpone(seconds)
        self.when += seconds
        self.last_moment += seconds
        if not self._expired:
            self.deadline += seconds

    def _ask(self, asked: Cancelled | HandedBack) -> None:
        if self.outcome is not None or isinstance(self._asked, Cancelled):
            return
        is_being_stopped = self.is_stopping
        self._asked = asked
        if not self._entered:
            # A cancel would end the task before it takes the coroutine in its hands.
            self.started = time.monotonic()
            self.call.close()
            self.task.cancel()
            self._end(Raised(asyncio.CancelledError()), self.started)
        elif not is_being_stopped:
            self._stop()

    async def _body(self) -> None:
        self.began()
        if self.begin(copy_context()):
            await self.go_on()

    def begin(self, context: Context) -> bool:
        """Take the coroutine's first step, in its task.

        Args:
            context: The coroutine's own.

        Returns:
            Whether it awaits something now: then `go_on`. Else the run has ended.
        """
        self._entered = True
        deadlines = self.deadlines
        self.started = now = time.monotonic()
        self.when = self.deadline = now + self.limit
        self.last_moment = self.deadline + self.grace
        if self.silence is not None:
            self.silence.begin()
        if self.when < deadlines.earliest:
            deadlines.expect(self.when)
        own: Outcome
        deadlines.enter(self)
        try:
            self._awaited = context.run(self.call.send, None)
        except StopIteration as stop:
            own = Returned(stop.value)
        except BaseException as error:  # noqa: BLE001  # the job's boundary: SystemExit would end the whole worker
            own = Raised(error)
        else:
            deadlines.leave(self)
            deadlines.watch(self)
            self._context = context
            return True
        self._end(own, deadlines.leave(self))
        return False

    async def go_on(self) -> None:
        """Take the coroutine's further steps, in its task, to its end."""
        own: Outcome
        try:
            own = Returned(await self)
        except GeneratorExit as error:
            if not self._is_current():  # the loop is gone, and with it whoever waits for us
                raise
            own = Raised(error)
        except BaseException as error:  # noqa: BLE001  # as above
            own = Raised(error)
        self.deadlines.forget(self)
        self._end(own, time.monotonic())
        # Circles, which only the garbage collector would find: the context knows the run, an error's frames this one.
        del self._context, own

    def __await__(self) -> Generator[Any, Any, Any]:
        """Drive the coroutine step by step, as an `await` of it would: so it is known whose code holds the loop."""
        deadlines, call, run = self.deadlines, self.call, self._context.run
        step: Callable[[Any], Any]
        payload: Any
        awaited, self._awaited = self._awaited, None  # it may know the run
        while True:
            try:
                payload = yield awaited
                step = call.send
            except GeneratorExit:  # the task is thrown away, and the coroutine with it
                call.close()
                raise
            except BaseException as error:  # noqa: BLE001  # the coroutine's business, whatever it is
                step, payload = call.throw, error
            deadlines.enter(self)
            try:
                awaited = run(step, payload)
            except StopIteration as stop:
                return stop.value
            finally:
                deadlines.leave(self)
                del payload  # an error's frames know this one, and with it the error: a circle

    def _is_current(self) -> bool:
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:  # no loop runs
            return False

    def _stop(self) -> None:
        self.task.cancel()
        self.when = self.last_moment = time.monotonic() + self.grace
        self.deadlines.watch(self)

    def _abandon(self) -> None:
        if self._interrupted:
            self.task.cancel()  # so far it was only interrupted; whatever it awaits now has had its grace
        self.deadlines.left_behind.add(self)
        self.number = UNNAMED  # its chunk may go, and another take its place in the shared memory
        self._settle(self._asked or TimedOut(self.limit, self.phase, "abandoned"), time.monotonic())
        logger.warning(
            "%s ignores its cancellation; it is left behind after %g s of grace",
            self.name, self.grace, extra={"event": "job.abandoned", **self.fields},
        )  # fmt: skip

    def _end(self, own: Outcome, now: float) -> None:
        if self.outcome is not None:
            self.deadlines.left_behind.discard(self)
            logger.warning(
                "%s, left behind, ended %.3f s after its start",
                self.name, now - self.started,
                extra={"event": "job.abandoned_end", **self.fields},
            )  # fmt: skip
            return
        is_in_time = now < self.deadline and self._asked is None and not self._expired
        self._settle(own if is_in_time else self._judge(own, now), now)

    def _judge(self, own: Outcome, now: float) -> Outcome:
        """Say what the run ends in; the first that holds wins."""
        if self._asked is not None:
            return self._asked
        if self._expired:
            return TimedOut(self.limit, self.phase, "interrupted" if self._interrupted else self.stopped)
        if now >= self.deadline:
            return TimedOut(self.limit, self.phase, "late")
        return own

    def _settle(self, outcome: Outcome, now: float) -> None:
        self.finished = now
        self.outcome = outcome
        self.ended()
