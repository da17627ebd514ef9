"""How a job of a chunk is run: where, and as which run of the timeout wrapper."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from protocol.batches import BatchOptions
from protocol.chunks import Calls
from protocol.clock import RedisClock
from protocol.jobs import JobSpec
from protocol.newjobs import NewJob
from protocol.results import Phase
from workers import registry
from workers.calling.adding import Additions, answer
from workers.calling.calls import in_thread, on_loop
from workers.calling.context import CurrentJob
from workers.calling.reports import OwnReport, Report
from workers.calling.threads import Threads
from workers.ending.outcomes import Raised
from workers.ending.retries import Retries
from workers.leases import Leases
from workers.processes import Process, Processes
from workers.recorder import Recorder
from workers.registry import Job
from workers.starting.slots import Slots
from workers.timeouts import Run
from workers.timing.clocks import ChunkClocks, Clocks
from workers.timing.deadlines import Deadlines
from workers.vitals.pulse import UNNAMED, offset_of

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Runner:
    """What all chunks of a worker share.

    Args:
        worker_id: For the results.
        slots: Jobs that may run at a time.
        recorder: Where results go.
        retries: Where jobs go that run again.
        leases: What the worker holds.
        clock: Redis' clock.
        result_limit: Longest value of one job, bytes of JSON.
        deadlines: Who watches the jobs' clocks.
        processes: Where plain functions run.
        threads: Where those run that ask for it.
        reports: What jobs say of themselves, of those that do.
        runs_of: What makes the runs of a batch's jobs.
        additions: What jobs add to their batches.
    """

    worker_id: str
    slots: Slots
    recorder: Recorder
    retries: Retries
    leases: Leases
    clock: RedisClock
    result_limit: int
    deadlines: Deadlines
    processes: Processes
    threads: Threads
    reports: dict[JobRun, Report]
    additions: Additions
    runs_of: Callable[[BatchOptions], Callable[..., JobRun]] = lambda options: JobRun

    def call(
        self,
        job: JobSpec[Any],
        function: Job[..., Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        process: Process | None,
    ) -> Coroutine[Any, Any, Any]:
        """Call a job where it is to run: on the loop, in a thread, or in this process."""
        if process is not None:
            return process.run(function, job, self.result_limit)
        if function.isolation == "thread":
            return self.threads.run(in_thread, function, args, kwargs, self.result_limit)
        return on_loop(function, args, kwargs, self.result_limit)


class ConcludesRuns(Protocol):
    """A chunk, as its runs see it."""

    batch_id: str
    number: float
    """What the number of its job 0 would be in the memory that is shared with the supervisor."""

    runner: Runner

    def conclude(self, run: JobRun) -> None:
        """Take note that a run has ended."""


class JobRun(Run):
    """A run of one job of a chunk.

    Attributes:
        has_awaited: Whether it has a task and a slot to itself, as it has awaited something.
    """

    process: Process | None = None
    attempt = 1
    has_awaited = False

    def __init__(
        self,
        call: Coroutine[Any, Any, Any],
        clocks: Clocks,
        chunk: ConcludesRuns,
        index: int,
        attempt: int,
        job: JobSpec[Any],
        function: Job[..., Any, Any],
        process: Process | None,
    ) -> None:
        limit, phase, grace = clocks
        super().__init__(call, limit, grace, chunk.runner.deadlines, phase, has_own_task=False)
        if chunk.number >= 0:
            self.number = chunk.number + index
            if phase != "running":
                self.number += offset_of(phase)
        self.chunk = chunk
        self.index = index
        self.job = job
        self.function = function
        if attempt != 1:
            self.attempt = attempt
        if process is not None:
            self.process, self.stopped = process, "killed"
        elif function.isolation == "thread":
            self.stopped = "abandoned"  # as it runs on unwatched

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"job {self.chunk.batch_id}:{self.index} {self.job.function}"

    @property
    def fields(self) -> dict[str, str]:
        """What to say of it in the fields of log lines."""
        return {"batch": self.chunk.batch_id, "job": f"{self.chunk.batch_id}:{self.index}"}

    def bound(self, limit: float, phase: Phase, when: float) -> None:
        """Say which clock runs out first: how long it is, which, and when."""
        self.limit, self.phase, self.when = limit, phase, when
        self.last_moment = when + self.grace
        if self.number != UNNAMED:
            self.number = self.chunk.number + self.index + offset_of(phase)

    def reclock(self, clocks: ChunkClocks) -> None:
        """Bound the run anew; one that is being stopped is not touched."""
        if self.is_stopping or self.outcome is not None:
            return
        start = self.chunk.runner.clock.at(self.started) if self.started else None
        limit, phase, _ = clocks.of(self.job, self.function, start)
        before = self.limit if self.silence is None else self.silence.reclock(limit, phase)
        if not self.has_begun:
            self.bound(limit, phase, 0.0)
            return
        self.deadline += limit - before  # it may have moved by itself, as others have held the loop
        self.bound(limit, phase, self.deadline)
        if self.silence is not None:
            self.silence.choose()
        self.deadlines.watch(self)
        if self.process is not None:
            self.process.report.deadline = self.deadline

    def ended(self) -> None:
        """Let the chunk conclude it."""
        self.chunk.conclude(self)
        if isinstance(self.outcome, Raised):
            error = self.outcome.error
            error.__traceback__ = error.__context__ = None  # their frames know the run: a circle

    def report(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat."""
        reports = self.chunk.runner.reports
        report = reports.get(self)
        if report is None:
            report = reports[self] = OwnReport()
        report.say(progress, note)
        if self.silence is not None:
            self.silence.heard()

    @property
    def batch_id(self) -> str:
        """The job's batch."""
        return self.chunk.batch_id

    @property
    def arguments_limit(self) -> int:
        """Longest arguments of a job that it adds, bytes of JSON."""
        return self.chunk.runner.additions.limit_bytes

    async def add(self, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs to the job's batch."""
        return await self.chunk.runner.additions.add(self, jobs)

    async def answer(self, request: bytes) -> bytes:
        """Add jobs for the job's process, which asks for it."""
        return await answer(self, request)

    def add_sync(self, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs to the job's batch, from a thread."""
        return self.chunk.runner.additions.add_from_thread(self, jobs)

    def current_job(self) -> CurrentJob:
        """Tell the job what it may ask."""
        return CurrentJob(self, self.chunk.batch_id, self.index, self.job.key, self.attempt)


def read_call(jobs: Sequence[JobSpec[Any]], at: int) -> tuple[JobSpec[Any], Arguments | None]:
    """Return a job and what it is called with; its arguments stay where they are if they were read with the others'."""
    if isinstance(jobs, Calls) and registry.isolation_of(jobs.kind_of(at).function) != "process" and jobs.calls:
        known, args, kwargs = jobs.calls
        return known[at], (args[at], kwargs[at])
    return jobs[at], None


def read_arguments(function: Job[..., Any, Any], job: JobSpec[Any], known: Arguments | None) -> Arguments:
    """Return what a job is called with; reads it, where it is not known."""
    return function.signature.decode_arguments(job.args, job.kwargs) if known is None else known
