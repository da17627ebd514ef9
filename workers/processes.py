"""Run plain functions in processes that can be killed, whatever they do.

Each process is a fresh interpreter in a process group of its own (safe beside threads and an event loop), which imports
the job's module by its name and then runs one job after the other; arguments and values go as JSON over a socket pair.
A job is stopped by SIGKILL to its whole process group, so that what it started ends with it; the process is replaced at
once.

Why not a library's pool: pebble 5 stops a job with SIGTERM, waits 3 s for it, leaves the job's own children alone and
pickles; anyio's `to_process` kills at once, but pickles too and knows no group. What is left of a pool without these is
the standard library's `subprocess` and a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from protocol.errors import StragglerError
from protocol.jobs import JobSpec
from workers.calling import context, spans
from workers.calling.calls import Encoded
from workers.calling.reports import SharedReport, make_file
from workers.ending.failures import Again, DescribedError
from workers.ending.outcomes import Outcome, Raised, Returned
from workers.registry import Job
from workers.starting.slots import Slots
from workers.vitals.endings import describe_exit

logger = logging.getLogger(__name__)

# An import of the jobs' module that takes longer than this, s, is an error.
_LONGEST_START = 60.0
# Time, s, for an idle process to hand on the spans that its jobs have made (OpenTelemetry's exporters do so at exit).
_LONGEST_END = 1.0
LENGTH_BYTES = 4
# Jobs are claimed before they have a process that will have one within this time, s, so many for each process at most.
# Without that jobs of 10 ms took a tenth longer, no-ops half as long again: a process stood idle during each claim.
_SOON = 0.02
_ROUNDS = 50

# Whether this is a job's process that imports a module of jobs. Were processes started then, each would import the
# module and start its own, without end: the trap of a script that runs its batch without asking for `__main__`.
_importing = False


class ProcessDiedError(StragglerError):
    """A job's process ended by itself.

    Args:
        message: What happened.
        ending: How it ended, e.g. `signal SIGKILL`, if that is known.
    """

    def __init__(self, message: str, ending: str = "") -> None:
        super().__init__(message)
        self.ending = ending


class Process:
    """One process, for one job at a time.

    Attributes:
        report: What its job says of itself.
    """

    def __init__(self) -> None:
        if _importing:
            raise ProcessDiedError(
                "the jobs' module starts jobs while a job's process imports it: put what it runs under "
                "`if __name__ == '__main__':`"
            )
        ours, theirs = socket.socketpair()
        self._socket = ours
        memory = make_file()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        with theirs:
            words = [sys.executable, "-m", "workers.calling.child", str(theirs.fileno()), str(memory)]
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                    words,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), memory],
                    process_group=0,  # of its own, to be killed with; in the worker's session, for the supervisor
                    env={**os.environ, "PYTHONPATH": path},
                )
            except OSError as error:
                ours.close()
                os.close(memory)
                raise ProcessDiedError(f"no process can be started for the job: {error}") from None
        self.report = SharedReport(memory)
        ours.setblocking(False)  # noqa: FBT003  # takes no keyword

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    async def start(self) -> None:
        """Wait until the process is ready for a job.

        Raises:
            ProcessDiedError: If it ends before, or is not ready for too long.
        """
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        try:
            async with asyncio.timeout(_LONGEST_START):
                await self._receive()
        except TimeoutError:
            raise ProcessDiedError(f"the job's process was not ready after {_LONGEST_START:g} s") from None

    async def run(self, function: Job[..., Any, Any], job: JobSpec[Any], result_limit: int) -> Encoded:
        """Run one job; if this is cancelled, the process must be killed.

        Raises:
            DescribedError: If the job raised.
            ProcessDiedError: If its process ended.
        """
        call = {
            "module": function.module,
            "job": function.name,
            "args": job.args,
            "kwargs": job.kwargs,
            "max_memory": function.max_memory,
            "result_limit": result_limit,
            "about": context.describe(),
            "trace": spans.carried(),
        }
        self.report.clear()
        self._send(to_json(call, bytes_mode="base64", inf_nan_mode="constants"))
        reply = await self._receive()
        while reply.startswith(b'{"add":'):
            self._send(await context.running().answer(reply))
            reply = await self._receive()
        if reply.startswith(b'{"value":'):
            return Encoded(reply)
        raise _told(from_json(reply))

    async def leave(self) -> None:
        """Let the process end by itself, which it does when nobody can ask it for more; and all that it started."""
        if self._writer is not None and spans.are_wanted():
            self._writer.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_END):
                    await self._end()
        await self.kill()

    async def kill(self) -> None:
        """End the process and all that it started."""
        # Its group may live on without it; one that is gone, or whose number belongs to others now, is none of ours.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()
        self.report.close()
        await self._end()

    async def _end(self) -> int:
        # Without a thread: those of the loop's executor are the jobs' own, which may hold all of them for ever.
        delay = 0.001
        while (code := self._process.poll()) is None:
            await asyncio.sleep(delay)
            delay = min(0.05, 2 * delay)
        return code

    def _send(self, text: bytes) -> None:
        assert self._writer is not None  # noqa: S101  # started before it is handed out
        self._writer.write(len(text).to_bytes(LENGTH_BYTES, "big") + text)

    async def _receive(self) -> bytes:
        assert self._reader is not None  # noqa: S101  # as above
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            ending = describe_exit(await self._end())
            raise ProcessDiedError(f"the job's process ended by itself: {ending}", ending) from None


class Processes:
    """A worker's processes for plain functions, started when they are first needed.

    Args:
        limit: How many run at a time.

    Attributes:
        places: One for each; a job that finds none free waits, and its clock with it.
    """

    def __init__(self, limit: int) -> None:
        self.places = Slots(limit, soon=_SOON, rounds=_ROUNDS)
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def take(self) -> Process:
        """Take a place, and a process that is ready.

        Raises:
            ProcessDiedError: If none can be started.
        """
        await self.places.take()
        return await self.ready()

    async def ready(self) -> Process:
        """Return a process that is ready, to who has a place, which is given back where there is none.

        Raises:
            ProcessDiedError: If none can be started.
        """
        try:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._drop(process)
            return await self._start()
        except BaseException:
            self.places.give()
            raise

    async def _start(self) -> Process:
        process = Process()
        self._all.add(process)
        try:
            await process.start()
        except BaseException:
            self._drop(process)
            raise
        return process

    def give(self, process: Process, *, is_fit: bool) -> None:
        """Give a process and its place back; one that is not fit for another job is killed and replaced."""
        if is_fit:
            self._idle.append(process)
        else:
            self._drop(process)
        self.places.give()

    async def close(self) -> None:
        """End all processes, and wait until they have ended."""
        for process in list(self._all):
            self._drop(process, is_idle=process in self._idle)
        self._idle.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    def _drop(self, process: Process, *, is_idle: bool = False) -> None:
        if process not in self._all:
            return  # closed meanwhile
        self._all.remove(process)
        ending = asyncio.get_running_loop().create_task(process.leave() if is_idle else process.kill())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _told(described: dict[str, Any]) -> DescribedError:
    again = None
    if "again_after" in described:
        again = Again()
        again.after = described.pop("again_after")
    return DescribedError(described, again)


def leaves_process_fit(outcome: Outcome | None) -> bool:
    """Whether a job that ended so leaves its process fit for the next one."""
    match outcome:
        case Returned():
            return True
        case Raised(DescribedError() as error):
            return error.described["error_type"] != "MemoryError"
        case _:
            return False


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Refuse to start processes meanwhile."""
    global _importing  # noqa: PLW0603  # of the process, as imports are
    _importing = True
    try:
        yield
    finally:
        _importing = False
