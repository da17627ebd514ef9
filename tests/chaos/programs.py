"""Processes of a run of chaos: started with a log of their own, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.commands import Command, unmeasured

ROOT = Path(__file__).parent.parent.parent

# How often to look what has become of one, s.
_INTERVAL = 0.02

# How straggler says that there was no Redis at its start; who starts it waits and tries again.
_NO_REDIS = ("RedisUnavailableError", "no Redis answers")


class Program:
    """A Python module that runs as a process, from time to time.

    Args:
        name: What to call it.
        words: The module and its arguments.
        log: Where its output goes.
        environment: Besides ours.
    """

    def __init__(self, name: str, words: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.was_killed = False
        self._module, *self._words = words
        self._log = log
        # Coverage would write its data in the middle of a kill.
        inherited = {name: value for name, value in unmeasured().items() if not name.startswith("STRAGGLER_")}
        self._environment = {**inherited, **environment}
        self._process: Command | None = None
        self._log_began = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it."""
        self.was_killed = False
        with self._log.open("ab") as output:
            self._log_began = output.tell()
            self._process = Command(
                *self._words, module=self._module, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        while (code := self._process.poll()) is None:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(_INTERVAL)
        return code

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it on purpose."""
        self.was_killed = True
        self.send(signal.SIGKILL)

    async def end(self) -> None:
        """Kill it on purpose, and wait for its end."""
        if self._process is not None:
            self.kill()
            await self.wait()

    async def until_says(self, text: str) -> bool:
        """Wait until its output holds a text; returns whether it did before it ended."""
        while text not in self.output():
            if not self.is_running:
                return text in self.output()
            await asyncio.sleep(_INTERVAL)
        return True

    def output(self) -> str:
        """What it has said since its last start."""
        with self._log.open("rb") as log:
            log.seek(self._log_began)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """Its last line."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "no word"

    @property
    def found_no_redis(self) -> bool:
        """Whether it ended because there was no Redis at its start."""
        return any(words in self.last_words() for words in _NO_REDIS)


def children(pid: int, marker: str) -> list[int]:
    """Name a process's children whose command line holds a text; Linux only."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            pids = task.read_text().split()
            found += [int(pid) for pid in pids if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sorted(found)
