"""What a worker process counts, for its supervisor to serve: jobs, their times, leases, how full it is.

Jobs are counted in memory that is shared (`workers.vitals.tally`), each time that a group of results has been written,
so it costs a job a fraction of a microsecond, and nothing where nobody asks for it; what is counted is told even if the
process is killed the moment after. All else is written to a file twice a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import compress, repeat
from operator import sub
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from protocol.clock import RedisClock
from workers import registry
from workers.recorder import Group
from workers.vitals.tally import Tally

_INTERVAL = 0.5
# What is asked of a row, and where it stands (see `workers.ending.rows`): read so, a long value costs nothing.
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_ROW = re.compile(
    rb'\{"index":\d+,"status":"\w+"(?:,"attempt":\d+)?(?:,"function":(%b))?(?:,"key":%b)?'
    rb'(?:,"started_at":([0-9.eE+-]+))?,"finished_at":([0-9.eE+-]+)' % (_TEXT, _TEXT)
)


class Signs(BaseModel):
    """How a process is, of which batches it holds chunks, and what it has counted beside jobs."""

    counted: dict[str, int] = {}
    now: dict[str, float] = {}
    batches: list[str] = []


class Metrics:
    """Count for one process, and write it down.

    Args:
        folder: Where: a file of this process's own.
        clock: Redis' clock.
        observe: Brings `Signs` up to date.
    """

    def __init__(self, folder: Path, clock: RedisClock, observe: Callable[[Signs], None]) -> None:
        self._signs = Signs()
        # Jobs that have not run yet are told of, too: a counter that begins with its first results has not risen.
        self._tally = Tally(folder / f"{os.getpid()}.jobs", registry.names())
        self._path = folder / f"{os.getpid()}.json"
        self._clock = clock
        self._observe = observe
        self._task: asyncio.Task[None] | None = None
        # Held as long as this process lives, however it ends; and from the moment that it can be seen.
        lock = folder / f"{os.getpid()}.lock"
        self._life = lock.open("w")
        fcntl.flock(self._life, fcntl.LOCK_EX)
        lock.rename(lock.with_suffix(".alive"))

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._write_for_ever(), name="straggler-metrics")

    async def stop(self) -> None:
        """Write what has been counted last."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.write()
        self._tally.close()
        self._life.close()

    def count(self, groups: Sequence[Group]) -> None:
        """Count results that have been written."""
        for group in groups:
            common = from_json(group.common)
            if len(group.rows[0]) == 3:
                self._count_rows(common, group.rows)
            else:
                self._count_successes(common, group.rows)

    def write(self) -> None:
        """Write down how the process is; a full disk is nobody's business here."""
        self._observe(self._signs)
        fresh = self._path.with_suffix(".new")
        with suppress(OSError):
            fresh.write_text(self._signs.model_dump_json())
            fresh.replace(self._path)

    def _count_successes(self, common: dict[str, Any], rows: Sequence[Any]) -> None:
        ahead = self._clock.at(0.0) - common["enqueued_at"]
        # No step of Python's for each job: this is half of what counting costs.
        _, _, _, started, ended, _, functions = zip(*rows, strict=True)
        run, wait = list(map(sub, ended, started)), list(map(ahead.__add__, started))
        found = set(functions)
        for function in found:
            own: Iterable[Any] = repeat(1) if len(found) == 1 else [name == function for name in functions]
            runs = list(compress(run, own))
            self._tally.add(function or common["function"], {"success": len(runs)}, runs, list(compress(wait, own)))

    def _count_rows(self, common: dict[str, Any], rows: Sequence[Any]) -> None:
        usual: str = common["function"]
        found: defaultdict[str, tuple[list[str], list[float], list[float]]] = defaultdict(lambda: ([], [], []))
        for _, status, text in rows:
            match = _ROW.match(text)
            # Nobody writes a row that does not match; it would count by its status alone.
            function, started, finished = match.groups() if match else (None, None, None)
            statuses, run, wait = found[usual if function is None else from_json(function)]
            statuses.append(status)
            if started is not None and finished is not None:
                began = float(started)
                run.append(float(finished) - began)
                wait.append(began - common["enqueued_at"])
        for function, (statuses, run, wait) in found.items():
            self._tally.add(function, Counter(statuses), run, wait)

    async def _write_for_ever(self) -> None:
        while True:
            self.write()
            await asyncio.sleep(_INTERVAL)
