"""How a job of a chunk is run: by what clocks, where, and as which run of the timeout wrapper."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from protocol.batches import DEFAULT_TIMEOUT, BatchOptions
from protocol.chunks import Calls
from protocol.clock import RedisClock
from protocol.jobs import JobSpec
from protocol.newjobs import NewJob
from protocol.results import Phase, Stopped
from workers import registry
from workers.adding import Additions, answer
from workers.calls import in_thread, on_loop
from workers.claims import Claimed
from workers.context import CurrentJob
from workers.deadlines import Deadlines
from workers.leases import Leases
from workers.processes import Process, Processes
from workers.pulse import job_number
from workers.recorder import Recorder
from workers.registry import Isolation, Job
from workers.reports import OwnReport, Report
from workers.retries import Retries
from workers.slots import Slots
from workers.threads import Threads
from workers.timeouts import Run

_NO_KEYWORDS: dict[str, Any] = {}
# How a job ends when the task that waits for it is cancelled: a process is killed, a thread runs on unwatched.
_STOPPED: dict[Isolation, Stopped] = {"loop": "cancelled", "process": "killed", "thread": "abandoned"}


class Clocks(NamedTuple):
    """What a run is bounded by.

    Args:
        limit: Longest run, s.
        phase: Which clock that is.
        grace: Time for cleanup, s.
    """

    limit: float
    phase: Phase
    grace: float


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

    def late(self, claimed: Claimed, options: BatchOptions, job: JobSpec[Any]) -> tuple[float, Phase] | None:
        """Say which clock of a job, s, has run out before it could start."""
        payload = claimed.payload
        if claimed.deadline is not None and self.clock.now() >= claimed.deadline:
            return options.deadline or 0.0, "batch"
        longest = job.queue_timeout or options.queue_timeout
        # A job that runs again has started before.
        if longest is not None and payload.index is None and self.clock.now() - payload.enqueued_at > longest:
            return longest, "queued"
        return None

    def clocks(
        self, claimed: Claimed, options: BatchOptions, job: JobSpec[Any], function: Job[..., Any, Any]
    ) -> Clocks:
        """Say what bounds a job that starts now."""
        limit = job.timeout or options.timeout or function.timeout or DEFAULT_TIMEOUT
        if claimed.deadline is not None:
            remaining = claimed.deadline - self.clock.now()
            if remaining < limit:
                return Clocks(max(0.0, remaining), "batch", options.grace)
        return Clocks(limit, "running", options.grace)

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
    row: int
    """Where it stands in the memory that is shared with the supervisor."""

    runner: Runner

    def conclude(self, run: JobRun) -> None:
        """Take note that a run has ended."""

    def enlist(self, run: JobRun) -> None:
        """Take note of a run that others may stop."""


class JobRun(Run):
    """A run of one job of a chunk."""

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
        stopped = _STOPPED["process" if process is not None else function.isolation]
        super().__init__(call, limit, grace, chunk.runner.deadlines, phase, stopped, has_own_task=False)
        self.number = job_number(chunk.row, index)
        self.chunk = chunk
        self.index = index
        self.attempt = attempt
        self.job = job
        self.function = function
        self.process = process

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"job {self.chunk.batch_id}:{self.index} {self.job.function}"

    @property
    def fields(self) -> dict[str, str]:
        """What to say of it in the fields of log lines."""
        return {"batch": self.chunk.batch_id, "job": f"{self.chunk.batch_id}:{self.index}"}

    def begin(self, context: Context) -> bool:
        """Take the first step, and let the chunk know of a run that awaits."""
        if self.process is not None:
            self.chunk.runner.reports[self] = self.process.report
        awaits = self.function.awaits = super().begin(context)
        if awaits:
            self.chunk.enlist(self)
        return awaits

    def ended(self) -> None:
        """Let the chunk conclude it."""
        self.chunk.conclude(self)

    def report(self, progress: float | None, note: str) -> None:
        """Take note of a heartbeat."""
        reports = self.chunk.runner.reports
        report = reports.get(self)
        if report is None:
            report = reports[self] = OwnReport()
        report.say(progress, note)

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


def read_call(jobs: Sequence[JobSpec[Any]], at: int) -> tuple[JobSpec[Any], tuple[Any, ...] | None]:
    """Return a job and what it is called with; its arguments stay where they are if they were read with the others'."""
    if isinstance(jobs, Calls) and jobs.arguments is not None and not registry.needs_process(jobs.alike.function):
        return jobs.alike, jobs.arguments[at]
    return jobs[at], None


def read_arguments(
    function: Job[..., Any, Any], job: JobSpec[Any], known: tuple[Any, ...] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a job is called with; reads it, where it is not known."""
    if known is not None:
        return known, _NO_KEYWORDS
    return function.signature.decode_arguments(job.args, job.kwargs)
