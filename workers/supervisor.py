"""Keep worker processes alive: start them, watch their pulse, kill one that hangs, replace whatever ends.

A worker whose loop stands still past the last moment of the job that holds it is killed, with all that the job started.
What becomes of a dead worker's jobs is `workers.aftermath`'s. The supervisor runs no job itself, so nothing can block
it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.aftermath import Aftermath
from workers.processes import describe_exit, kill_session
from workers.pulse import TICK, Pulse

logger = logging.getLogger(__name__)

# With this code a worker leaves that asks for a fresh one in its place (sysexits' EX_TEMPFAIL).
EXHAUSTED = 75

# How often the processes are looked at, s.
_INTERVAL = 0.02
# A process that has not beaten once after this long, s, will not; nor will one that hangs outside any job.
_LONGEST_START = 60.0
_LONGEST_STALL = 30.0
# The interrupt inside the process has the first word.
_SLACK = 0.1
# A process that keeps ending soon after its start is started again ever later, up to this, s.
_LONGEST_BACKOFF = 10.0


@dataclass(slots=True)
class Child:
    """A worker process."""

    process: subprocess.Popen[bytes]
    pulse: Pulse
    path: Path
    started: float
    hung: bool = False


class Supervisor:
    """Run `count` worker processes until told to stop.

    Args:
        words: The command of a worker process; it finds the path of its shared memory in `--pulse`.
        count: How many.
        chunks: How many chunks one may hold at a time.
        aftermath: Who settles a dead process's jobs.
        kill_floor: A process whose loop stands still for less than this is never killed, s.
        environment: Of the processes.
        burst: Whether the processes leave by themselves, once the queue is empty.
    """

    def __init__(
        self,
        words: Sequence[str],
        count: int,
        chunks: int,
        aftermath: Aftermath,
        kill_floor: float,
        environment: Mapping[str, str],
        *,
        burst: bool = False,
    ) -> None:
        self._burst = burst
        self._environment = environment
        self._words = words
        self._count = count
        self._chunks = chunks
        self._aftermath = aftermath
        self._kill_floor = kill_floor
        self._children: list[Child] = []
        self._stops = 0
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
                    await asyncio.sleep(_INTERVAL)
                    for child in list(self._children):
                        await self._look_at(child)
                    self._is_done = self._is_done or (not self._children and self._stops > 0)
            finally:
                for child in self._children:
                    kill_session(child.process.pid)
        return self._code

    def stop(self) -> None:
        """Tell all processes to stop; they let their jobs finish. A second call hurries them."""
        self._stops += 1
        for child in self._children:
            child.process.send_signal(signal.SIGTERM)

    def _fill(self, folder: Path) -> None:
        while len(self._children) < self._count and not self._stops and time.monotonic() >= self._start_at:
            path = folder / f"{time.monotonic_ns()}"
            pulse = Pulse.create(path, self._chunks)
            # A session of its own: Ctrl-C is ours to pass on, and a kill reaches what the jobs have started.
            words = [*self._words, "--pulse", str(path)]
            process = subprocess.Popen(words, start_new_session=True, env=self._environment)  # noqa: S603  # ourselves
            self._children.append(Child(process, pulse, path, time.monotonic()))

    async def _look_at(self, child: Child) -> None:
        if child.process.poll() is None:
            if not child.hung and self._is_hanging(child, time.monotonic()):
                child.hung = True
                kill_session(child.process.pid)
                child.process.wait()
            else:
                return
        self._children.remove(child)
        await self._bury(child)
        child.pulse.close()
        child.path.unlink()

    def _is_hanging(self, child: Child, now: float) -> bool:
        tick = child.pulse.cells[TICK]
        if tick == 0:
            return now - child.started > _LONGEST_START
        if now - tick < self._kill_floor:
            return False
        current = child.pulse.current()
        if current is None:
            return now - tick > _LONGEST_STALL
        return now > current.last_moment + _SLACK

    async def _bury(self, child: Child) -> None:
        code = child.process.returncode
        never_ready = child.pulse.cells[TICK] == 0
        if (code == 0 and (self._burst or self._stops)) or (code > 0 and never_ready):
            # It has left as it should, or has said itself why it cannot work.
            self._code = max(self._code, code)
            self._count -= 1
            self._is_done = self._count == 0
            return
        kill_session(child.process.pid)  # what its jobs have started
        if code in (0, EXHAUSTED):  # somebody may have told it to stop, a job of its own even
            return
        # What ends under a job is that job's doing, and bounded; what ends by itself may do so for ever.
        lived = time.monotonic() - child.started
        is_failing = child.pulse.current() is None and lived < _LONGEST_BACKOFF
        self._failures = self._failures + 1 if is_failing else 0
        self._start_at = time.monotonic() + (min(_LONGEST_BACKOFF, 0.1 * 2**self._failures) if is_failing else 0.0)
        logger.warning(
            "worker process %d %s", child.process.pid, "hung and was killed" if child.hung else describe_exit(code),
            extra={"event": "worker.killed" if child.hung else "worker.died", "pid": child.process.pid},
        )  # fmt: skip
        await self._aftermath.settle(child.pulse, describe_exit(code), killed=child.hung)


def worker_words(arguments: Sequence[str]) -> list[str]:
    """Make the command of a worker process."""
    return [sys.executable, "-m", "straggler.cli", "worker", *arguments]
