"""Keep worker processes alive: start them, watch their pulse, kill one that hangs, replace whatever ends.

A worker whose loop stands still past the last moment of the job that holds it is killed, with all that the job started.
What becomes of a dead worker's jobs is `workers.vitals.aftermath`'s. The supervisor runs no job itself, so nothing can
block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from redis.exceptions import ResponseError

from workers.vitals.aftermath import Aftermath, Death
from workers.vitals.endings import describe_exit, kill_session
from workers.vitals.pulse import LEASED_UNTIL, STOPS, TICK, Current, Pulse

logger = logging.getLogger(__name__)

# With this code a worker leaves that asks for a fresh one in its place (sysexits' EX_TEMPFAIL).
EXHAUSTED = 75
# With this one a worker leaves that somebody has told to drain: nobody takes its place.
DRAINED = 76
_IN_ORDER = (0, EXHAUSTED, DRAINED)

# How often the processes are looked at, s.
_INTERVAL = 0.02
# A process that has not beaten once after this long, s, will not; nor will one that hangs outside any job.
_LONGEST_START = 60.0
_LONGEST_STALL = 30.0
# A look that comes later than this, s: the machine was asleep, or had no time for us.
_STANDSTILL = 1.0
# The interrupt inside the process has the first word.
_SLACK = 0.1
# A process that keeps ending soon after its start is started again ever later, up to this, s.
_LONGEST_BACKOFF = 10.0
# Redis gets this long, s, to take what dead processes have left, once all others have ended; and a process that is told
# to stop gets it beyond what its jobs have.
_FAREWELL = 3.0
# A process whose loop has not turned for this long, s, does not hear that.
_DEAF = 1.0


@dataclass(slots=True)
class Child:
    """A worker process.

    Attributes:
        hung: Whether it was killed because its loop stood still.
        culprit: The job that held its loop then; the process may have gone on a little until the signal came.
        kept: Whether it was killed because a job kept it from stopping in time.
        renewed: When its leases were renewed for it, on the monotonic clock.
    """

    process: Popen[bytes]
    pulse: Pulse
    path: Path
    started: float
    hung: bool = False
    culprit: Current | None = None
    kept: bool = False
    renewed: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it has beaten: it could be started, and works."""
        return self.pulse.cells[TICK] != 0

    def kill(self) -> None:
        """Kill it with all that its jobs have started in its session."""
        kill_session(self.process.pid)

    def forget(self) -> None:
        """Let go of its memory."""
        self.pulse.close()
        self.path.unlink(missing_ok=True)


class Supervisor:
    """Run `count` worker processes until told to stop.

    The first process shows that one can be started at all, the others follow: what keeps the first from its work (a
    module that cannot be imported, no Redis) is said once, by it, and ends the supervisor with its code. Later the same
    is a passing trouble.

    Args:
        start: Starts a worker process, in a session of its own, and tells it where its shared memory is; raises OSError
            if none can be started.
        count: How many.
        chunks: How many chunks one may hold at a time.
        aftermath: Who settles a dead process's jobs.
        kill_floor: A process whose loop stands still for less than this is never killed, s.
        shutdown_wait: How long running jobs may finish once the processes are told to stop, s.
        burst: Whether a process that leaves by itself has done its work.

    Attributes:
        deaths: How many processes have ended otherwise than in order, `killed` or `died`.
    """

    def __init__(
        self,
        start: Callable[[Path], Popen[bytes]],
        count: int,
        chunks: int,
        aftermath: Aftermath,
        kill_floor: float,
        shutdown_wait: float = 10.0,
        *,
        burst: bool = False,
    ) -> None:
        self._start_process = start
        self._count = count
        self._chunks = chunks
        self._aftermath = aftermath
        self._kill_floor = kill_floor
        self._burst = burst
        self._children: list[Child] = []
        self._settling: set[asyncio.Task[None]] = set()
        self._is_proven = False
        self.deaths: Counter[str] = Counter()
        self._shutdown_wait = shutdown_wait
        self._stops = 0
        self._kill_at = 0.0
        self._failures = 0
        self._start_at = 0.0
        self._is_done = False
        self._code = 0

    async def run(self) -> int:
        """Supervise until told to stop, or until all processes have left in order; returns the exit code."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        with tempfile.TemporaryDirectory(prefix="straggler-") as folder:
            try:
                while not self._is_done:
                    self._fill(Path(folder))
                    began = time.monotonic()
                    await asyncio.sleep(_INTERVAL)
                    if time.monotonic() - began > _STANDSTILL:
                        continue  # who stood still with us has had no time to say that it lives
                    for child in list(self._children):
                        self._look_at(child)
                    self._is_done = self._is_done or (not self._children and self._stops > 0)
                await self._say_farewell()
            finally:
                for child in self._children:
                    child.kill()
                    child.process.wait()
                    child.forget()
        return self._code

    def stop(self) -> None:
        """Tell all processes to stop; they let their jobs finish. A second call hurries them."""
        self._stops += 1
        self._kill_at = time.monotonic() + (self._shutdown_wait if self._stops == 1 else 0.0) + _FAREWELL
        for child in self._children:
            child.pulse.cells[STOPS] = self._stops
            child.process.send_signal(signal.SIGTERM)

    def _fill(self, folder: Path) -> None:
        wanted = self._count if self._is_proven else 1
        while len(self._children) < wanted and not self._stops and time.monotonic() >= self._start_at:
            try:
                self._start(folder / f"{time.monotonic_ns()}")
            except OSError as error:  # no memory, too many processes
                logger.warning("no worker process can be started: %s", error, extra={"event": "worker.start_failed"})
                self._back_off()

    def _start(self, path: Path) -> None:
        pulse = Pulse.create(path, self._chunks)
        try:
            process = self._start_process(path)
        except OSError:
            pulse.close()
            path.unlink()
            raise
        self._children.append(Child(process, pulse, path, time.monotonic()))

    def _look_at(self, child: Child) -> None:
        self._is_proven = self._is_proven or child.is_ready
        if child.process.poll() is not None:
            self._children.remove(child)
            self._bury(child)
        elif not child.hung and self._is_hanging(child, time.monotonic()):
            child.hung = True
            child.kill()
        elif self._ignores_stop(child, time.monotonic()):
            child.kept = True
            child.kill()
        elif self._cannot_renew(child, time.monotonic()):
            child.renewed = time.monotonic()
            self._settle_later(self._renew(child))

    def _is_hanging(self, child: Child, now: float) -> bool:
        if not child.is_ready:
            return now - child.started > _LONGEST_START
        stall = now - child.pulse.cells[TICK]
        if stall < self._kill_floor:
            return False
        child.culprit = child.pulse.current()
        if child.culprit is None:
            return stall > _LONGEST_STALL
        # A loop may be late because it has much to do; what is killed for it is a job whose one step takes so long.
        return now - child.culprit.since >= self._kill_floor and now > child.culprit.last_moment + _SLACK

    def _ignores_stop(self, child: Child, now: float) -> bool:
        """Whether a job keeps the process from hearing that it is to stop, and its time for that is up."""
        return self._stops > 0 and now > self._kill_at and now - child.pulse.cells[TICK] > _DEAF

    def _cannot_renew(self, child: Child, now: float) -> bool:
        """Whether a job, still in its time, keeps the process from renewing its leases."""
        interval = 0.3 * self._aftermath.lease
        is_blocked = child.is_ready and not child.hung and now - child.pulse.cells[TICK] > interval
        return is_blocked and now - child.renewed > interval and child.pulse.current() is not None

    async def _renew(self, child: Child) -> None:
        with contextlib.suppress(ResponseError):  # a key is not ours; the worker will say so
            until = await self._aftermath.renew(child.pulse)
            if child in self._children:  # it may have ended meanwhile
                child.pulse.cells[LEASED_UNTIL] = until

    def _bury(self, child: Child) -> None:
        code = child.process.returncode
        if not self._is_proven and code >= 0 and not self._stops:
            # It has said itself why it cannot work.
            self._code = code or 1
            self._is_done = True
            child.forget()
        elif code in _IN_ORDER and child.is_ready and not child.pulse.chunks():
            # In order; a job that calls os._exit(0) leaves its chunk behind.
            self._count -= int(code == DRAINED or (code == 0 and self._burst))
            self._is_done = self._count == 0
            child.kill()  # what its jobs have started
            child.forget()
        elif self._stops and not child.is_ready:
            child.forget()  # told to stop while it started
        else:
            self._mourn(child)

    def _mourn(self, child: Child) -> None:
        code = child.process.returncode
        self.deaths["killed" if child.hung or child.kept else "died"] += 1
        ending = "hung and was killed" if child.hung or child.kept else describe_exit(code)
        logger.warning(
            "worker process %d: %s", child.process.pid, ending,
            extra={"event": "worker.killed" if child.hung else "worker.died", "pid": child.process.pid},
        )  # fmt: skip
        child.kill()  # what its jobs have started would go on beside their next run
        current = child.culprit if child.hung else child.pulse.current()
        # What ends under a job is that job's doing, and bounded; what ends by itself may do so for ever.
        has_worked = current is not None or any(child.pulse.chunks().values())
        if not has_worked and time.monotonic() - child.started < _LONGEST_BACKOFF:
            self._back_off()
        else:
            self._failures = 0
        # Redis may be away: the other processes are looked after meanwhile.
        in_order = child.kept or (code in _IN_ORDER and current is None)
        death = Death(ending, current, killed=child.hung, in_order=in_order)
        self._settle_later(self._settle(child, death))

    def _settle_later(self, work: Coroutine[Any, Any, None]) -> None:
        settling = asyncio.create_task(work, name="straggler-aftermath")
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _settle(self, child: Child, death: Death) -> None:
        try:
            await self._aftermath.settle(child.pulse, death)
        finally:
            child.forget()

    async def _say_farewell(self) -> None:
        if not self._settling:
            return
        _, late = await asyncio.wait(self._settling, timeout=_FAREWELL)
        for settling in late:  # their leases lapse
            settling.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _back_off(self) -> None:
        self._failures += 1
        self._start_at = time.monotonic() + min(_LONGEST_BACKOFF, 0.1 * 2 ** min(self._failures, 10))
