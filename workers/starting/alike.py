"""Jobs of a chunk that travelled as rows: what the runs of one function share is looked up once for all of them.

Worth a quarter of a no-op job's time in the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protocol.chunks import Calls
from protocol.jobs import JobSpec
from protocol.kinds import Called, Kind
from workers import registry
from workers.calling.calls import on_loop
from workers.calling.runs import JobRun
from workers.claims import Claimed
from workers.registry import Job
from workers.starting.view import StartsRuns
from workers.timing.clocks import ChunkClocks, Clocks


class Alike:
    """Make runs of jobs of which none can be late, be silent, has run before, or needs a process or a thread.

    Args:
        chunk: Their chunk.
        kinds: Of what kinds they are.
        calls: What each is called with.
        clocks: By what clocks they run.
        first: Index of the first.
    """

    def __init__(
        self, chunk: StartsRuns, kinds: Sequence[Kind], calls: Called, clocks: ChunkClocks, first: int
    ) -> None:
        self._chunk = chunk
        self._jobs, self._args, self._kwargs = calls
        self._first = first
        self._clocks = clocks
        self._functions = {kind.function: registry.find(kind.function) for kind in kinds}
        # What all runs share, where they have nothing of their own; 0.5 us a job.
        self._shared = None if len(kinds) > 1 or kinds[0].own else self._look_up(0)
        self._run_of = chunk.runner.runs_of(clocks.options)
        self._result_limit = chunk.runner.result_limit

    @staticmethod
    def of(chunk: StartsRuns, claimed: Claimed, clocks: ChunkClocks, jobs: Sequence[JobSpec[Any]]) -> Alike | None:
        """Return None where the jobs of a chunk are to be looked at one by one."""
        if not isinstance(jobs, Calls) or claimed.crashes or claimed.failures:
            return None
        if not all(_is_usual(kind, clocks) for kind in jobs.kinds):
            return None
        calls = jobs.calls
        return None if calls is None else Alike(chunk, jobs.kinds, calls, clocks, claimed.payload.start)

    def awaits(self, index: int) -> bool:
        """Whether a job is of a function that awaits something."""
        _, function, _ = self._shared or self._look_up(index - self._first)
        return function.awaits

    def run(self, index: int) -> JobRun:
        """Make a job's run, which starts."""
        at = index - self._first
        job, function, clocks = self._shared or self._look_up(at)
        self._chunk.note_start(index)
        call = on_loop(function, self._args[at], self._kwargs[at], self._result_limit)
        return self._run_of(call, clocks, self._chunk, index, 1, job, function, None)

    def _look_up(self, at: int) -> tuple[JobSpec[Any], Job[..., Any, Any], Clocks]:
        job = self._jobs[at]
        function = self._functions[job.function]
        return job, function, self._clocks.of(job, function)


def _is_usual(kind: Kind, clocks: ChunkClocks) -> bool:
    is_on_loop = registry.isolation_of(kind.function) == "loop"
    return is_on_loop and not kind.has_own_clock and clocks.are_alike(registry.find(kind.function))
