"""Run one chunk: every job of it in its own timeout, every result to the recorder.

This module decides when a job starts, and whether it runs again; `workers.timeouts` decides what it ends in. A chunk
may run twice (its worker died); the recorder keeps the first result of each job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableSequence, Sequence
from typing import Any

from pydantic import ValidationError

from protocol import keys
from protocol.batches import BatchOptions
from protocol.chunks import decode_chunk
from protocol.errors import ProtocolError, explain
from protocol.jobs import JobSpec
from protocol.results import encode_common
from workers import registry
from workers.claims import SUSPICIOUS_CRASHES, Claimed, Crash, is_poison
from workers.processes import Process, ProcessDiedError, leaves_process_fit
from workers.retries import Deferred, delay_before_retry
from workers.rows import Row, Rows
from workers.runs import JobRun, Runner, read_arguments, read_call
from workers.timeouts import Raised, TimedOut

logger = logging.getLogger(__name__)


class ChunkRun:
    """One run of one chunk.

    Args:
        claimed: The chunk.
        runner: What it shares with the worker's other chunks.
        row: Where it stands in the memory that is shared with the supervisor; -1: nowhere.
        begun: Where in that memory is written how many of its jobs have started.
    """

    def __init__(self, claimed: Claimed, runner: Runner, row: int, begun: MutableSequence[float] | None) -> None:
        self.claimed = claimed
        self.batch_id = claimed.payload.batch_id
        self._first = claimed.payload.first
        self.row = row
        self.runner = runner
        self._begun: MutableSequence[float] = [0.0] if begun is None or row < 0 else begun
        self._runs: dict[JobRun, None] = {}
        self._unrecorded = 0
        # The task that starts its jobs, while it does.
        self._starting: asyncio.Task[Any] | None = None
        self._has_started = self._is_stopped = False
        # Whether it is to run again: some jobs have no result, or one that it consists of has failed and will.
        self._again = False
        # Whether its jobs are needed no longer: of those that do not run here that cannot be said.
        self._all_succeeded = len(claimed.open_jobs()) == claimed.payload.count
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
            self._options = options
            self._describe_group(jobs[0].function)
            await self._start_until_stopped(jobs)
        return await self.finish()

    async def finish(self) -> str:
        """Wait until all that was started has ended and is recorded; returns what becomes of the chunk."""
        await self._until_idle()
        if self._again:
            return "again"
        return "succeeded" if self._all_succeeded else "ended"

    def stop(self) -> None:
        """Start no more jobs; those that run may end."""
        if self._has_started or self._is_stopped:
            return
        self._again = self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()

    def hand_back(self) -> None:
        """Stop all jobs that run, start no more; what has no result yet runs elsewhere."""
        self.stop()
        for run in list(self._runs):
            self._again = True
            run.hand_back()

    @property
    def longest_grace(self) -> float:
        """How long, s, its jobs may clean up once they are stopped."""
        return max((run.grace for run in self._runs), default=0.0)

    @property
    def job_tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of its jobs that run."""
        return [run.task for run in self._runs]

    def _read(self) -> tuple[BatchOptions, Sequence[JobSpec[Any]]]:
        claimed, key = self.claimed, keys.chunks(self.batch_id)
        if claimed.jobs is None:
            raise ProtocolError(key, f"field {self._first} is gone, and with it its jobs")
        try:
            options = BatchOptions.model_validate_json(claimed.options)
        except ValidationError as error:
            raise ProtocolError(keys.batch(self.batch_id), f"field options: {explain(error, 1)}") from None
        jobs = decode_chunk(self._first, claimed.jobs, key)
        count = claimed.payload.count
        if len(jobs) != count:
            raise ProtocolError(key, f"field {self._first} holds {len(jobs)} jobs instead of {count}")
        return options, jobs

    def _describe_group(self, function: str) -> None:
        runner = self.runner
        self._common = encode_common(function, runner.worker_id, self.claimed.payload.enqueued_at)
        self._rows = Rows(function, runner.clock, runner.result_limit)

    def _fail_all(self, error: ProtocolError) -> None:
        unknown: JobSpec[Any] = JobSpec(function="unknown")
        self._describe_group(unknown.function)
        for index in self.claimed.open_jobs():
            self._put(self._rows.failed(index, unknown, error))

    async def _start_until_stopped(self, jobs: Sequence[JobSpec[Any]]) -> None:
        if self._is_stopped:
            return
        starting = self._starting = asyncio.current_task()
        try:
            await self._start_all(jobs)
            self._has_started = True
        except asyncio.CancelledError:
            # A cancel of our own ends nothing but the starting.
            if not self._is_stopped or starting is None or starting.uncancel() > 0:
                raise
        finally:
            self._starting = None

    async def _start_all(self, jobs: Sequence[JobSpec[Any]]) -> None:
        slots, recorder, claimed = self.runner.slots, self.runner.recorder, self.claimed
        left = claimed.open_jobs()
        if claimed.crashes:
            left = await self._sift(left, jobs)
        for index in left:
            if recorder.is_full:
                await recorder.room()
            if not slots.try_take():
                await slots.take()
            job, arguments = read_call(jobs, index - self._first)
            await self._start(index, job, arguments)

    async def _sift(self, indexes: Sequence[int], jobs: Sequence[JobSpec[Any]]) -> list[int]:
        """Give up the jobs under which workers have died too often, run the suspicious ones alone; returns the rest."""
        unsuspected = []
        for index in indexes:
            job, crashes = jobs[index - self._first], self.claimed.crashes_under(index)
            if is_poison(crashes):
                self._put(self._lose(index, job, crashes))
            elif len(crashes) >= SUSPICIOUS_CRASHES:
                await self._run_alone(index, job)
            else:
                unsuspected.append(index)
        if unsuspected:
            await self._say_at_work(None)
        return unsuspected

    async def _run_alone(self, index: int, job: JobSpec[Any]) -> None:
        """Run a job in a process of its own, whatever it is, and nothing else of this chunk meanwhile."""
        await self.runner.slots.take()
        await self._start(index, job, alone=True)
        await self._until_idle()

    async def _say_at_work(self, index: int | None) -> None:
        """Say which job runs alone, or that all may run; without the lease none may."""
        if not await self.runner.leases.say_at_work(self.claimed.chunk_id, self.batch_id, index):
            self.stop()
            await asyncio.sleep(0)  # where the cancel comes out

    async def _start(
        self, index: int, job: JobSpec[Any], arguments: tuple[Any, ...] | None = None, *, alone: bool = False
    ) -> None:
        """Start a job that has its slot, with its arguments if they are known; an error is the job's failure."""
        runner, attempt = self.runner, self.claimed.attempt(index)
        process: Process | None = None
        is_started = False
        try:
            function = registry.find(job.function)
            args, kwargs = read_arguments(function, job, arguments)
            if alone or function.isolation == "process":
                process = await runner.processes.take()
            if alone:
                await self._say_at_work(index)
            late = runner.late(self.claimed, self._options, job)
            if late is not None:
                self._put(self._rows.not_started(index, job, *late, attempt))
                return
            call = runner.call(job, function, args, kwargs, process)
            clocks = runner.clocks(self.claimed, self._options, job, function)
            run = JobRun(call, clocks, self, index, attempt, job, function, process)
            self._runs[run] = None
            self._begun[max(0, self.row)] = index + 1
            is_started = True
        except Exception as error:  # noqa: BLE001  # the validators of a job's own types may raise anything
            self._put(self._rows.failed(index, job, error, attempt=attempt))
        finally:
            if not is_started:
                self._give_back(process, is_fit=True)

    def _give_back(self, process: Process | None, *, is_fit: bool) -> None:
        self.runner.slots.give()
        if process is not None:
            self.runner.processes.give(process, is_fit=is_fit)

    def conclude(self, run: JobRun) -> None:
        """Give back the slot of a run that has ended, and record what it ended in, or let it run again."""
        del self._runs[run]
        if not self._runs:
            self._begun[max(0, self.row)] = 0.0  # should the worker die now, it is under none of them
        self._give_back(run.process, is_fit=leaves_process_fit(run.outcome))
        lost, delay = self._lost(run), self._delay_before_retry(run)
        if lost is not None:
            self._put(lost)
        elif delay is not None:
            self._run_again(run, delay)
        else:
            if isinstance(run.outcome, TimedOut) and run.outcome.phase == "batch":
                run.outcome.limit = self._options.deadline or 0.0  # it was given what was left of that
            row = self._rows.ended(run.index, run.job, run.function, run, run.attempt)
            if row is not None:
                self._put(row)
        self._wake_if_idle()

    def _lost(self, run: JobRun) -> Row | None:
        """Write down that a suspicious job has ended the process that it ran alone in, if it was that."""
        before = self.claimed.crashes_under(run.index)
        if len(before) < SUSPICIOUS_CRASHES:
            return None
        match run.outcome:
            case Raised(ProcessDiedError(ending=ending)) if ending:
                clock, worker = self.runner.clock, self.runner.worker_id
                started, ended = clock.at(run.started), clock.at(run.finished)
                crash = Crash(
                    worker=worker, start=run.index, stop=run.index + 1, ending=ending,
                    started_at=started, ended_at=ended,
                )  # fmt: skip
                return self._lose(run.index, run.job, [*before, crash])
            case _:
                return None

    def _lose(self, index: int, job: JobSpec[Any], crashes: Sequence[Crash]) -> Row:
        logger.warning(
            "job %s:%d is lost: its process ended under it %d times", self.batch_id, index, len(crashes),
            extra={"event": "job.lost", "job": f"{self.batch_id}:{index}"},
        )  # fmt: skip
        return self._rows.lost(index, job, crashes)

    def _delay_before_retry(self, run: JobRun) -> float | None:
        claimed = self.claimed
        failures = claimed.failures.get(run.index, 0)
        delay = delay_before_retry(run.outcome, self._options, run.function, failures)
        if delay is None or claimed.deadline is None or self.runner.clock.now() + delay < claimed.deadline:
            return delay
        return None  # it could not start any more

    def _run_again(self, run: JobRun, delay: float) -> None:
        self._all_succeeded = False
        self._again = self._again or self.claimed.payload.index is not None
        self._unrecorded += 1
        failures = self.claimed.failures.get(run.index, 0) + 1
        deferred = Deferred(self.claimed.chunk_id, self.claimed.payload, run.index, failures, delay)
        self.runner.retries.put(deferred, self)

    def _put(self, row: Row) -> None:
        self._all_succeeded = self._all_succeeded and row[1] == "success"
        self._unrecorded += 1
        self.runner.recorder.put(self.batch_id, self._common, row, self)

    def count_recorded(self, count: int) -> None:
        """Take note that so many more of its results have been written."""
        self._unrecorded -= count
        self._wake_if_idle()

    async def _until_idle(self) -> None:
        while self._runs or self._unrecorded:
            self._idle.clear()
            await self._idle.wait()

    def _wake_if_idle(self) -> None:
        if not self._runs and not self._unrecorded:
            self._idle.set()
