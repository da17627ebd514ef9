"""Stop an async job that blocks the event loop, in its own frame, once its time is up.

While a job's code holds the loop, no timer of the loop can fire; an interval timer of the operating system can, as long
as the code runs Python or waits in a call that checks for signals. Its handler raises `Interrupted` if, and only if,
the frame that it interrupts belongs to the coroutine of the run that is current and whose time is up: never inside the
loop, arq, another job, or our own bookkeeping around a job's step.

A timer needs no thread, so it works while a C call holds the GIL; a thread with `pthread_kill` never got the GIL from a
backtracking regex. Where the platform has no `setitimer`, or the loop is not on the main thread, everything else works.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from workers.context import running
from workers.deadlines import Deadlines
from workers.pulse import LAST_MOMENT

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
        self._before: Any = None
        self._is_on = False

    def start(self) -> None:
        """Take SIGALRM and the interval timer, where there are both."""
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            return
        self._before = signal.getsignal(signal.SIGALRM)
        self._is_on = True
        self._deadlines.on_set = self.set
        self.keep()

    def stop(self) -> None:
        """Give both back."""
        if self._is_on:
            self._is_on = False
            self._deadlines.on_set = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before or signal.SIG_DFL)

    def keep(self) -> None:
        """Take both again if a job has taken them for itself."""
        if self._is_on and signal.getsignal(signal.SIGALRM) != self._on_alarm:
            signal.signal(signal.SIGALRM, self._on_alarm)
            self.set(time.monotonic())
        elif self._is_on and not any(signal.getitimer(signal.ITIMER_REAL)):
            self.set(time.monotonic())

    def set(self, when: float) -> None:
        """Look at the loop shortly after this time, and from then on regularly."""
        if self._is_on:  # an alarm may come while we stop
            delay = min(_LONGEST, when - time.monotonic() + _SLACK)
            # It goes on by itself: deep in a recursion the handler may have no room to set it anew.
            signal.setitimer(signal.ITIMER_REAL, max(_SLACK, delay), _AGAIN)

    def _on_alarm(self, _signum: int, frame: FrameType | None) -> None:
        run: Any = self._deadlines.current
        now = time.monotonic()
        if run is None:
            self._blame_caller()
            self.set(now + _LONGEST)
        elif now < run.when or not _is_inside(frame, self._deadlines.code):
            self.set(max(run.when, now))
        else:
            run.interrupted(now)
            self._deadlines.cells[LAST_MOMENT] = run.last_moment
            self.set(run.when)
            raise Interrupted("the job blocked the event loop past its time")

    def _blame_caller(self) -> None:
        """Tell the supervisor whose callback holds the loop, if one does; at the next beat nobody holds it."""
        run = running()
        if run is not None:
            self._deadlines.blame(run)


def _is_inside(frame: FrameType | None, call: Any) -> bool:
    """Whether a frame is the coroutine's own, or was called from it."""
    own = getattr(call, "cr_frame", None)
    while frame is not None and own is not None:
        if frame is own:
            return True
        frame = frame.f_back
    return False
