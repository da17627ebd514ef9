"""Run one chunk: every job of it in its own timeout, every result to the recorder.

This module decides when a job starts; `workers.timeouts` decides how long it may run and what it ends in. A chunk may
run twice (its worker died); the recorder keeps the first result of each job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from protocol import keys
from protocol.batches import DEFAULT_TIMEOUT, BatchOptions
from protocol.connection import RedisClock
from protocol.errors import ProtocolError, explain
from protocol.jobs import JobSpec, decode_chunk
from protocol.results import Stopped, encode_common
from workers import registry
from workers.calls import in_thread, on_loop
from workers.context import CurrentJob, enter
from workers.deadlines import Deadlines
from workers.processes import Process, Processes, leaves_process_fit
from workers.pulse import job_number
from workers.recorder import Recorder
from workers.registry import Isolation, Job
from workers.rows import Row, Rows
from workers.slots import Slots
from workers.tasks import guarded
from workers.threads import Threads
from workers.timeouts import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A chunk as it was claimed.

    Args:
        chunk_id: Its name.
        batch_id: Its batch.
        first: Index of its first job.
        count: How many jobs it has.
        attempt: How often it was claimed, this time included.
        enqueued_at: Unix s.
        options: The batch's options, JSON.
        jobs: Its jobs, JSON; None if they are gone.
        done: The batch's done bits, from the byte that holds the first job's.
    """

    chunk_id: str
    batch_id: str
    first: int
    count: int
    attempt: int
    enqueued_at: float
    options: bytes
    jobs: bytes | None
    done: bytes

    def is_done(self, index: int) -> bool:
        """Whether a job had its result when the chunk was claimed."""
        byte = index // 8 - self.first // 8
        return byte < len(self.done) and bool(self.done[byte] & (0x80 >> index % 8))


@dataclass(frozen=True, slots=True)
class Runner:
    """What all chunks of a worker share.

    Args:
        worker_id: For the results.
        slots: Jobs that may run at a time.
        recorder: Where results go.
        clock: Redis' clock.
        result_limit: Longest value of one job, bytes of JSON.
        deadlines: Who watches the jobs' clocks.
        processes: Where plain functions run.
        threads: Where those run that ask for it.
    """

    worker_id: str
    slots: Slots
    recorder: Recorder
    clock: RedisClock
    result_limit: int
    deadlines: Deadlines
    processes: Processes
    threads: Threads


# How a job ends when the task that waits for it is cancelled: a process is killed, a thread runs on unwatched.
_STOPPED: dict[Isolation, Stopped] = {"loop": "cancelled", "process": "killed", "thread": "abandoned"}


class JobRun(Run):
    """A run of one job of a chunk."""

    __slots__ = ("chunk", "function", "index", "job", "process")

    def __init__(
        self,
        call: Coroutine[Any, Any, Any],
        limit: float,
        grace: float,
        chunk: ChunkRun,
        index: int,
        job: JobSpec[Any],
        function: Job[..., Any, Any],
        process: Process | None,
    ) -> None:
        super().__init__(call, limit, grace, chunk.runner.deadlines, stopped=_STOPPED[function.isolation])
        self.process = process
        self.number = job_number(chunk.row, index)
        self.chunk = chunk
        self.index = index
        self.job = job
        self.function = function

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"job {self.chunk.claimed.batch_id}:{self.index} {self.job.function}"

    def make_task(self, body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Make a task that no other job can cancel."""
        return guarded(asyncio.get_running_loop(), body, self)

    def began(self) -> None:
        """Let the job ask who it is."""
        enter(self)

    def ended(self) -> None:
        """Let the chunk conclude it."""
        self.chunk.conclude(self)

    def current_job(self) -> CurrentJob:
        """Tell the job what it may ask."""
        claimed = self.chunk.claimed
        return CurrentJob(self, claimed.batch_id, self.index, self.job.key, claimed.attempt)


class ChunkRun:
    """One run of one chunk.

    Args:
        claimed: The chunk.
        runner: The worker's slots, recorder and clock.
        row: Where it stands in the memory that is shared with the supervisor.
    """

    def __init__(self, claimed: Claimed, runner: Runner, row: int) -> None:
        self.claimed = claimed
        self.row = row
        self.runner = runner
        self._runs: dict[JobRun, None] = {}
        self._unrecorded = 0
        self._handed_back = False
        self._all_succeeded = True
        self._idle = asyncio.Event()

    async def run(self) -> str:
        """Run all jobs that have no result yet, to their ends.

        Returns:
            What becomes of the chunk: `succeeded`, `ended` or `again` (see release.lua).
        """
        try:
            options, jobs = self._read()
        except ProtocolError as error:
            logger.exception("chunk %s cannot be read", self.claimed.chunk_id, extra={"event": "chunk.unreadable"})
            self._fail_all(error)
        else:
            await self._start_all(options, jobs)
        return await self.finish()

    async def finish(self) -> str:
        """Wait until all that was started has ended and is recorded; returns what becomes of the chunk."""
        while self._runs or self._unrecorded:
            self._idle.clear()
            await self._idle.wait()
        if self._handed_back:
            return "again"
        return "succeeded" if self._all_succeeded else "ended"

    def hand_back(self) -> None:
        """Stop all jobs that run, start no more; what has no result yet runs elsewhere."""
        self._handed_back = True
        for run in list(self._runs):
            run.hand_back()

    def _read(self) -> tuple[BatchOptions, Sequence[JobSpec[Any]]]:
        claimed, key = self.claimed, keys.chunks(self.claimed.batch_id)
        if claimed.jobs is None:
            raise ProtocolError(key, f"field {claimed.first} is gone, and with it its jobs")
        try:
            options = BatchOptions.model_validate_json(claimed.options)
        except ValidationError as error:
            raise ProtocolError(keys.batch(claimed.batch_id), f"field options: {explain(error, 1)}") from None
        jobs = decode_chunk(claimed.batch_id, claimed.first, claimed.jobs, key).jobs
        if len(jobs) != claimed.count:
            raise ProtocolError(key, f"field {claimed.first} holds {len(jobs)} jobs instead of {claimed.count}")
        return options, jobs

    def _describe_group(self, function: str) -> None:
        claimed, runner = self.claimed, self.runner
        common = encode_common(function, runner.worker_id, claimed.attempt, claimed.enqueued_at)
        self._common = common
        self._rows = Rows(function, runner.clock, runner.result_limit)

    def _fail_all(self, error: ProtocolError) -> None:
        unknown: JobSpec[Any] = JobSpec(function="unknown")
        self._describe_group(unknown.function)
        for index in range(self.claimed.first, self.claimed.first + self.claimed.count):
            self._put(self._rows.failed(index, unknown, error))

    async def _start_all(self, options: BatchOptions, jobs: Sequence[JobSpec[Any]]) -> None:
        self._describe_group(jobs[0].function)
        slots, recorder = self.runner.slots, self.runner.recorder
        for index, job in enumerate(jobs, start=self.claimed.first):
            if self._handed_back:
                break
            if self.claimed.is_done(index):
                continue
            if recorder.is_full:
                await recorder.room()
            if not slots.try_take():
                await slots.take()
            try:
                await self._start(index, job, options)
            except Exception as error:  # noqa: BLE001  # the validators of a job's own types may raise anything
                slots.give()
                self._put(self._rows.failed(index, job, error))

    async def _start(self, index: int, job: JobSpec[Any], options: BatchOptions) -> None:
        """Start a job that has its slot; an error is the job's failure."""
        function = registry.find(job.function)
        args, kwargs = function.signature.decode_arguments(job.args, job.kwargs)
        process = await self.runner.processes.take() if function.isolation == "process" else None
        longest = job.queue_timeout or options.queue_timeout
        is_late = longest is not None and self.runner.clock.now() - self.claimed.enqueued_at > longest
        if self._handed_back or is_late:
            self._give_back(process, is_fit=True)
            if longest is not None and not self._handed_back:
                self._put(self._rows.not_started(index, job, longest, "queued"))
            return
        limit = job.timeout or options.timeout or function.timeout or DEFAULT_TIMEOUT
        if process is not None:
            call = process.run(function, job, self.runner.result_limit)
        elif function.isolation == "thread":
            call = self.runner.threads.run(in_thread, function, args, kwargs, self.runner.result_limit)
        else:
            call = on_loop(function, args, kwargs, self.runner.result_limit)
        run = JobRun(call, limit, options.grace, self, index, job, function, process)
        self._runs[run] = None

    def _give_back(self, process: Process | None, *, is_fit: bool) -> None:
        self.runner.slots.give()
        if process is not None:
            self.runner.processes.give(process, is_fit=is_fit)

    def conclude(self, run: JobRun) -> None:
        """Give back the slot of a run that has ended, and record what it ended in."""
        del self._runs[run]
        self._give_back(run.process, is_fit=leaves_process_fit(run.outcome))
        row = self._rows.ended(run.index, run.job, run.function, run)
        if row is not None:
            self._put(row)
        self._wake_if_idle()

    def _put(self, row: Row) -> None:
        self._all_succeeded = self._all_succeeded and row[1] == "success"
        self._unrecorded += 1
        self.runner.recorder.put(self.claimed.batch_id, self._common, row, self)

    def count_recorded(self, count: int) -> None:
        """Take note that so many more of its results have been written."""
        self._unrecorded -= count
        self._wake_if_idle()

    def _wake_if_idle(self) -> None:
        if not self._runs and not self._unrecorded:
            self._idle.set()
