"""Nodes: supervisors with their worker processes, started again whenever they end."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

from tests.chaos import journal
from tests.chaos.findings import Findings
from tests.chaos.programs import Program, children
from tests.chaos.store import Store

PROCESSES = 2
CONCURRENCY = 60
SHUTDOWN_WAIT = 1.0
# A supervisor that is told to stop has this long, s: shutdown_wait, grace, its own farewells, and a busy machine.
_LONGEST_END = 40.0
# And this long to start, s.
_LONGEST_START = 60.0
# A node that ended by itself is started again after this, s.
_PAUSE = 0.5

READY = "takes jobs from"


class Node:
    """One `straggler worker`, as a host would run it under an init system.

    Args:
        name: What to call it.
        url: How it reaches Redis.
        folder: The run's folder.
        store: Redis; while it is down nothing is started.
        lease: Setting of the workers, s.
        findings: Where it is told that it ended by itself.
    """

    def __init__(self, name: str, url: str, folder: Path, store: Store, lease: float, findings: Findings) -> None:
        environment = {
            journal.FOLDER: str(folder),
            journal.NODE: name,
            "TMPDIR": str(folder / "tmp"),  # a supervisor that is killed leaves its directory behind
            "STRAGGLER_REDIS_URL": url,
            "STRAGGLER_SHUTDOWN_WAIT": str(SHUTDOWN_WAIT),
            "STRAGGLER_LEASE": str(lease),
        }
        words = ["straggler.cli", "worker", "--jobs", "tests.chaos.jobs"]
        words += ["--processes", str(PROCESSES), "--concurrency", str(CONCURRENCY)]
        self.name = name
        self.lock = asyncio.Lock()
        self._program = Program(name, words, folder / "logs" / f"{name}.log", environment)
        self._store = store
        self._findings = findings
        self._is_leaving = False
        self._was_told = False
        self._pause = _PAUSE
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._code = 0

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._program.pid

    def workers(self) -> list[int]:
        """Name its worker processes that take jobs."""
        if not self._program.is_running:
            return []
        said = self._program.output()  # "worker <host>-<pid>-<digits> takes jobs from"
        return [pid for pid in children(self.pid, "workerprocess") if re.search(rf"-{pid}-\w+ {READY}", said)]

    async def keep(self) -> None:
        """Start it, and again whenever it ends, until it is told to leave."""
        while not self._is_leaving:
            await self._store.is_up.wait()
            self._was_told = False
            self._ended.clear()
            await self._program.start()
            self._started.set()
            self._code = await self._program.wait()
            self._started.clear()
            self._ended.set()
            if not self._was_told and not self._program.found_no_redis:
                words = self._program.last_words()
                self._findings.add("died", f"supervisor {self.name} ended by itself, code {self._code}: {words}")
            await asyncio.sleep(self._pause)
            self._pause = _PAUSE

    async def ready(self) -> None:
        """Wait until it takes jobs; if it does not for too long, that is a finding."""
        try:
            async with asyncio.timeout(_LONGEST_START):
                while True:
                    await self._started.wait()
                    if await self._program.until_says(READY):
                        return
                    await self._ended.wait()
        except TimeoutError:
            words = self._program.last_words()
            self._findings.add("died", f"supervisor {self.name} takes no jobs for {_LONGEST_START:g} s: {words}")

    async def kill(self, pause: float) -> None:
        """Kill the supervisor; another starts after the pause, s."""
        self._was_told, self._pause = True, pause
        self._program.kill()
        await self._ended.wait()

    async def terminate(self) -> None:
        """Tell it to stop, and wait until it has."""
        self._was_told, self._pause = True, 0.0
        self._program.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(_LONGEST_END):
                await self._ended.wait()
        except TimeoutError:
            self._findings.add("shutdown", f"supervisor {self.name} runs {_LONGEST_END:g} s after SIGTERM")
            await self.kill(0.0)
            return
        if self._code != 0:
            words = self._program.last_words()
            self._findings.add("shutdown", f"supervisor {self.name} left with code {self._code} on SIGTERM: {words}")

    async def leave(self) -> None:
        """Stop for good."""
        self._is_leaving = True
        if self._started.is_set():
            await self.terminate()

    def send(self, signum: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self._program.send(signum)

    async def end(self) -> None:
        """Leave nothing behind."""
        self._is_leaving = True
        await self._program.end()
