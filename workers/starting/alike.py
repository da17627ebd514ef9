"""Jobs of a chunk that differ in their arguments only: what their runs share is looked up once for all of them.

Worth a quarter of a no-op job's time in the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protocol.chunks import Calls
from protocol.jobs import JobSpec
from workers import registry
from workers.calling.calls import on_loop
from workers.calling.runs import JobRun
from workers.claims import Claimed
from workers.starting.view import StartsRuns
from workers.timing.clocks import ChunkClocks

_NO_KEYWORDS: dict[str, Any] = {}


class Alike:
    """Make runs of jobs of which none can be late, be silent, has run before, or needs a process or a thread.

    Args:
        chunk: Their chunk.
        jobs: All jobs of the chunk.
        arguments: What each is called with.
        clocks: By what clocks they run.
        first: Index of the first.

    Attributes:
        function: What all of them call.
    """

    def __init__(
        self, chunk: StartsRuns, jobs: Calls, arguments: list[tuple[Any, ...]], clocks: ChunkClocks, first: int
    ) -> None:
        self._chunk = chunk
        self._job = jobs.alike
        self.function = registry.find(jobs.alike.function)
        self._arguments = arguments
        self._first = first
        self._clocks = clocks.of(jobs.alike, self.function)
        self._run_of = chunk.runner.runs_of(clocks.options)
        self._result_limit = chunk.runner.result_limit

    @staticmethod
    def of(chunk: StartsRuns, claimed: Claimed, clocks: ChunkClocks, jobs: Sequence[JobSpec[Any]]) -> Alike | None:
        """Return None where the jobs of a chunk are to be looked at one by one."""
        if not isinstance(jobs, Calls) or registry.isolation_of(jobs.alike.function) != "loop":
            return None
        if claimed.crashes or claimed.failures or not clocks.are_alike(registry.find(jobs.alike.function)):
            return None
        arguments = jobs.arguments
        return None if arguments is None else Alike(chunk, jobs, arguments, clocks, claimed.payload.start)

    def run(self, index: int) -> JobRun:
        """Make a job's run, which starts."""
        function = self.function
        self._chunk.note_start(index)
        call = on_loop(function, self._arguments[index - self._first], _NO_KEYWORDS, self._result_limit)
        return self._run_of(call, self._clocks, self._chunk, index, 1, self._job, function, None)
