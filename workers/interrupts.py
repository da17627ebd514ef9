"""Stop an async job that blocks the event loop, in its own frame, once its time is up.

While a job's code holds the loop, no timer of the loop can fire; an interval timer of the operating system can, as long
as the code runs Python or waits in a call that checks for signals. Its handler raises `Interrupted` if, and only if,
the frame that it interrupts belongs to the coroutine of the run that is current and whose time is up: never inside the
loop, arq, another job, or our own bookkeeping around a job's step.

A timer needs no thread, so it works while a C call holds the GIL; a thread with `pthread_kill` never got the GIL from a
backtracking regex. Where the platform has no `setitimer`, or the loop is not on the main thread, everything else works.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from workers.calling.context import running
from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import CURRENT, LAST_MOMENT, NOBODY

# The loop's own timer comes first, s: only a loop that could not ring in time is interrupted.
_SLACK = 0.02
# A blocked loop is looked at this often, s, where no earlier time is set.
_LONGEST = 1.0
# Where it could not be set anew it fires this often, s.
_AGAIN = 0.02


class Interrupted(BaseException):
    """Raised inside a job that blocks the event loop past its time.

    Not an Exception: `except Exception: pass` in a loop must not swallow it.
    """


class Interrupts:
    """Interrupt the current run of these deadlines when it blocks past its time.

    Args:
        deadlines: Who knows the current run.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._is_on = False

    def start(self) -> None:
        """Take SIGALRM and the interval timer, where there are both."""
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            return
        self._is_on = True
        _alarm.take(self._on_alarm)
        self._deadlines.on_set = self.set
        self.set(self._deadlines.earliest)

    def stop(self) -> None:
        """Give both back."""
        if self._is_on:
            self._is_on = False
            self._deadlines.on_set = None
            _alarm.give_back(self._on_alarm)

    def keep(self) -> None:
        """Take both again if a job has taken them for itself."""
        if self._is_on:
            _alarm.keep()

    def set(self, when: float) -> None:
        """Look at the loop shortly after this time, and from then on regularly."""
        if self._is_on:  # an alarm may come while we stop
            _alarm.set(self._on_alarm, when)

    def _on_alarm(self, frame: FrameType | None) -> None:
        run: Any = self._deadlines.current
        now, earliest = time.monotonic(), self._deadlines.earliest
        # A timer that is due rings as soon as the loop turns; until then any job may get hold of the loop, so look
        # often.
        if run is None:
            self._blame_caller()
            self.set(earliest)
        elif not run.is_due(now) or not _is_inside(frame, self._deadlines.code):
            self.set(min(run.when, earliest))
        else:
            run.interrupted(now)
            self._deadlines.cells[LAST_MOMENT] = run.last_moment
            self.set(min(run.when, earliest))
            raise Interrupted("the job blocked the event loop past its time")

    def _blame_caller(self) -> None:
        """Tell the supervisor whose callback holds the loop, if one does; at the next beat nobody holds it."""
        run = running()
        if run is not None and self._deadlines.cells[CURRENT] == NOBODY:  # once: it is known from then on
            self._deadlines.blame(run)


class _Alarm:
    """SIGALRM and its timer: a process has one, all workers in it share it, the last one gives it back as it was."""

    def __init__(self) -> None:
        self._times: dict[Callable[[FrameType | None], None], float] = {}
        self._handler: Any = None
        self._timer = (0.0, 0.0)
        self._taken = 0.0

    def take(self, user: Callable[[FrameType | None], None]) -> None:
        if not self._times:
            self._taken = time.monotonic()
            self._timer = signal.getitimer(signal.ITIMER_REAL)
            self._handler = signal.signal(signal.SIGALRM, self._ring)
            # The loop hears of signals by a pipe, which a long block fills with alarms: that is no news to anybody.
            signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        self._times[user] = math.inf

    def keep(self) -> None:
        """Take both again if a job has taken them for itself."""
        if signal.getsignal(signal.SIGALRM) != self._ring:
            signal.signal(signal.SIGALRM, self._ring)
            self._arm(_SLACK)
        elif not any(signal.getitimer(signal.ITIMER_REAL)):
            self._arm(_SLACK)

    def give_back(self, user: Callable[[FrameType | None], None]) -> None:
        del self._times[user]
        if not self._times:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler or signal.SIG_DFL)
            delay, interval = self._timer
            if delay:
                delay = max(_SLACK, delay - (time.monotonic() - self._taken))
            signal.setitimer(signal.ITIMER_REAL, delay, interval)

    def set(self, user: Callable[[FrameType | None], None], when: float) -> None:
        self._times[user] = when
        self._arm(min(self._times.values()) - time.monotonic() + _SLACK)

    def _arm(self, delay: float) -> None:
        # It goes on by itself: deep in a recursion the handler may have no room to set it anew.
        signal.setitimer(signal.ITIMER_REAL, max(_SLACK, min(_LONGEST, delay)), _AGAIN)

    def _ring(self, _signum: int, frame: FrameType | None) -> None:
        for look in list(self._times):
            look(frame)


_alarm = _Alarm()

# What is raised in the callback of a weak reference is printed and lost; it may be called wherever an object ends, e.g.
# an exception with its task. It is short: the next alarm comes after it.
_CONTAINERS: list[Any] = [weakref.WeakSet(), weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()]
_CALLBACKS = {container._remove.__code__ for container in _CONTAINERS}  # noqa: SLF001  # it has no other name
# Nor in what a tracer runs in the job's frames: coverage would keep its lock, and the process stand still for ever.
_TRACERS = {"coverage"}


def _is_inside(frame: FrameType | None, call: Any) -> bool:
    """Whether a frame is the coroutine's own, or was called from it and hands on what is raised in it."""
    own = getattr(call, "cr_frame", None)
    while frame is not None and own is not None and frame.f_code not in _CALLBACKS:
        if frame is own:
            return True
        if frame.f_globals.get("__name__", "").partition(".")[0] in _TRACERS:
            return False
        frame = frame.f_back
    return False
