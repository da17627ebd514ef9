"""Run one chunk: every job of it in its own timeout, every result to the recorder.

This module decides when a job starts, and whether it runs again; `workers.timeouts` decides what it ends in. A chunk
may run twice (its worker died); the recorder keeps the first result of each job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableSequence, Sequence
from typing import Any

from protocol.control import Orders
from protocol.errors import ProtocolError
from protocol.jobs import JobSpec
from protocol.recording import encode_common
from workers import registry
from workers.beating import BeatingRun
from workers.claims import Claimed, Crash, is_poison
from workers.clocks import ChunkClocks
from workers.processes import Process, leaves_process_fit
from workers.retries import Deferred, delay_before_retry
from workers.rows import Row, Rows
from workers.runs import JobRun, Runner, read_arguments, read_call
from workers.suspects import crash_of, is_suspicious, say_lost
from workers.timeouts import TimedOut

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
        self.payload = claimed.payload
        self.batch_id = claimed.payload.batch_id
        self.orders = claimed.orders
        self._first = claimed.payload.first
        self.row = row
        self.runner = runner
        self._begun: MutableSequence[float] = [0.0] if begun is None or row < 0 else begun
        self._runs: dict[JobRun, None] = {}
        # Jobs that have not started, the next one last, and the one that only waits for its process.
        self._left: list[int] = []
        self._at_door: int | None = None
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
            self._options, self._jobs = self.claimed.read()
            self._clocks = ChunkClocks(self.runner.clock, self.payload, self._options, self.claimed.deadline)
        except ProtocolError as error:
            logger.exception("chunk %s cannot be read", self.claimed.chunk_id, extra={"event": "chunk.unreadable"})
            self._fail_all(error)
        else:
            self._describe_group(self._jobs[0].function)
            await self._start_until_stopped()
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

    def obey(self, orders: Orders) -> None:
        """Cancel what was decided to be cancelled, what has not started never starts; move the batch's deadline."""
        self.orders = orders
        if orders.deadline is not None and self._clocks.move_deadline(orders.deadline):
            for run in self._runs:
                limit, phase, _ = self._clocks.of(run.job, run.function, self.runner.clock.at(run.started))
                run.reclock(limit, phase)
        for run in list(self._runs):
            reason = orders.why_not_to_run(run.index)
            if reason is not None:
                run.cancel(reason)
        waiting = self._left if self._at_door is None else [*self._left, self._at_door]
        refused = {index: why for index in waiting if (why := orders.why_not_to_start(index)) is not None}
        self._left[:] = [index for index in self._left if index not in refused]
        self._at_door = None if self._at_door in refused else self._at_door
        for index, why in refused.items():
            self._put(self._rows.cancelled(index, self._jobs[index - self._first], why, self.claimed.attempt(index)))

    @property
    def longest_grace(self) -> float:
        """How long, s, its jobs may clean up once they are stopped."""
        return max((run.grace for run in self._runs), default=0.0)

    @property
    def job_tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of its jobs that run."""
        return [run.task for run in self._runs]

    def _describe_group(self, function: str) -> None:
        runner = self.runner
        self._common = encode_common(function, runner.worker_id, self.claimed.payload.enqueued_at)
        self._rows = Rows(function, runner.clock, runner.result_limit)

    def _fail_all(self, error: ProtocolError) -> None:
        unknown: JobSpec[Any] = JobSpec(function="unknown")
        self._describe_group(unknown.function)
        for index in self.claimed.open_jobs():
            self._put(self._rows.failed(index, unknown, error))

    async def _start_until_stopped(self) -> None:
        if self._is_stopped:
            return
        starting = self._starting = asyncio.current_task()
        try:
            await self._start_all()
            self._has_started = True
        except asyncio.CancelledError:
            # A cancel of our own ends nothing but the starting.
            if not self._is_stopped or starting is None or starting.uncancel() > 0:
                raise
        finally:
            self._starting = None

    async def _start_all(self) -> None:
        slots, recorder, claimed = self.runner.slots, self.runner.recorder, self.claimed
        self._left = claimed.open_jobs()[::-1]
        if self.orders is not None:
            self.obey(self.orders)
        if claimed.crashes:
            await self._sift()
        while self._left:
            if recorder.is_full:
                await recorder.room()
            if not slots.try_take():
                await slots.take()
            if self._left:
                index = self._left.pop()
                await self._start(index, *read_call(self._jobs, index - self._first))
            else:  # cancelled meanwhile
                slots.give()

    async def _sift(self) -> None:
        """Give up the jobs under which workers have died too often, and run the suspicious ones alone."""
        for index in self._left[::-1]:
            crashes = self.claimed.crashes_under(index)
            if index not in self._left:  # cancelled meanwhile
                continue
            if is_poison(crashes):
                self._left.remove(index)
                self._put(self._lose(index, crashes))
            elif is_suspicious(crashes):
                await self._run_alone(index)
        if self._left:
            await self._say_at_work(None)

    async def _run_alone(self, index: int) -> None:
        """Run a job in a process of its own, whatever it is, and nothing else of this chunk meanwhile."""
        await self.runner.slots.take()
        if index not in self._left:
            self.runner.slots.give()
            return
        self._left.remove(index)
        await self._start(index, self._jobs[index - self._first], alone=True)
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
                self._at_door = index
                process = await runner.processes.take()
                if alone:
                    await self._say_at_work(index)
                if self._at_door is None:  # cancelled meanwhile
                    return
                self._at_door = None
            if (late := self._clocks.late(job)) is not None:
                self._put(self._rows.not_started(index, job, *late, attempt))
                return
            call = runner.call(job, function, args, kwargs, process)
            made = (call, self._clocks.of(job, function), self, index, attempt, job, function, process)
            silence = self._clocks.heartbeat_timeout(job, function)
            run = JobRun(*made) if silence is None else BeatingRun(silence, *made)
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
        before, delay = self.claimed.crashes_under(run.index), self._delay_before_retry(run)
        crash = crash_of(run, before, self.runner.clock, self.runner.worker_id)
        if crash is not None:
            self._put(self._lose(run.index, [*before, crash]))
        elif delay is not None:
            self._run_again(run, delay)
        else:
            if isinstance(run.outcome, TimedOut):
                run.outcome.limit = self._clocks.limit_of(run.outcome.phase, run.job, run.outcome.limit)
            if (row := self._rows.ended(run.index, run.job, run.function, run, run.attempt)) is not None:
                self._put(row)
        self._wake_if_idle()

    def _lose(self, index: int, crashes: Sequence[Crash]) -> Row:
        say_lost(f"{self.batch_id}:{index}", len(crashes))
        return self._rows.lost(index, self._jobs[index - self._first], crashes)

    def _delay_before_retry(self, run: JobRun) -> float | None:
        failures = self.claimed.failures.get(run.index, 0)
        delay = delay_before_retry(run.outcome, self._options, run.function, failures)
        return delay if delay is not None and self._clocks.allow_start(run.job, delay) else None

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
