"""Run one chunk: every job of it in its own timeout, every result to the recorder.

This module decides whether a job runs again; `workers.starting.starts` when it starts, `workers.timeouts` what it ends
in. A chunk may run twice (its worker died); the recorder keeps the first result of each job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableSequence
from typing import Any

from protocol.control import Orders
from protocol.errors import ProtocolError
from protocol.recording import OverChunk, Row, encode_common
from workers.calling.runs import JobRun, Runner
from workers.claims import Claimed
from workers.ending.outcomes import Returned, TimedOut
from workers.ending.retries import Deferred, delay_before_retry, say_again
from workers.ending.rows import Rows, say_done
from workers.ending.unreadable import fail_all
from workers.processes import leaves_process_fit
from workers.starting.starts import Starts
from workers.starting.suspects import crash_of, lose
from workers.starting.unstarted import Surplus
from workers.timing.clocks import ChunkClocks
from workers.vitals.pulse import job_number

logger = logging.getLogger(__name__)

# Results of a turn are handed on before its end when they are as many, or one of them has more bytes.
_MOST_FRESH = 256
_LARGE = 4096


class ChunkRun:
    """One run of one chunk.

    Args:
        claimed: The chunk.
        runner: What it shares with the worker's other chunks.
        row: Where it stands in the memory that is shared with the supervisor; -1: nowhere.
        begun: Where in that memory is written how many of its jobs have started.

    Attributes:
        is_released: Whether it was let go of with its last results, or given back.
        starts: Who starts its jobs, while any are left.
        handed_back: Of each job that was at work when it was handed back: how that attempt ended.
    """

    def __init__(self, claimed: Claimed, runner: Runner, row: int, begun: MutableSequence[float] | None) -> None:
        self.claimed = claimed
        self.payload = claimed.payload
        self.batch_id = claimed.payload.batch_id
        self.orders = claimed.orders
        self._row = max(0, row)
        self.number = job_number(row, 0)
        self.runner = runner
        self._begun: MutableSequence[float] = [0.0] if begun is None or row < 0 else begun
        self._runs: dict[JobRun, None] = {}
        self.starts: Starts | None = None
        self._unrecorded = 0
        # Results of this turn, which are handed on together at its end.
        self._fresh: list[Row] = []
        self._starting: asyncio.Task[Any] | None = None  # the task that starts its jobs, while it does
        self._has_started = self._is_stopped = self.is_released = False
        # Whether it is to run again: some jobs have no result, or one that it consists of has failed and will.
        self._again = False
        self.handed_back: dict[int, bytes] = {}
        # Whether its jobs are needed no longer: of those that do not run here that cannot be said.
        self._outcome = "succeeded" if len(claimed.open_jobs()) == claimed.payload.count else "ended"
        self._idle = asyncio.Event()
        self._tells_jobs = logger.isEnabledFor(logging.DEBUG)

    async def run(self) -> str:
        """Run all jobs that have no result yet, to their ends.

        Returns:
            What becomes of the chunk: `succeeded`, `ended` or `again` (see release.lua), or `given back`.
        """
        try:
            self._options, jobs = self.claimed.read()
            self._clocks = ChunkClocks(self.runner.clock, self.payload, self._options, self.claimed.deadline)
        except ProtocolError as error:
            self._describe_group("unknown")
            fail_all(self, error)
        else:
            self._describe_group(jobs[0].function)
            self.starts = Starts(self, self._clocks, jobs)
            await self._start_until_stopped(self.starts)
        return await self.finish()

    async def finish(self) -> str:
        """Wait until all that was started has ended and is recorded; returns what becomes of the chunk."""
        await self.until_idle()
        return "again" if self._again and not self.is_released else self._outcome

    def stop(self) -> None:
        """Start no more jobs; those that run may end."""
        if self._has_started or self._is_stopped:
            return
        self._again = True
        self._end_starting()

    def _end_starting(self) -> None:
        self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()

    def hand_back(self) -> None:
        """Stop all jobs that run, start no more; what has no result yet runs elsewhere."""
        self.stop()
        for run in list(self._runs):
            self._again = True
            run.hand_back()

    def withhold(self, least: int) -> Surplus | None:
        """Start no more of what may be given back, so that `least` jobs stay; None if there is nothing."""
        surplus = None if self.starts is None else self.starts.withhold(least)
        self._unrecorded += surplus is not None
        return surplus

    def settle(self, surplus: Surplus, reply: int) -> None:
        """Take note of what has become of jobs that were withheld, as `Leases.give_back` tells."""
        starts, kept = self.starts, surplus.kept
        if starts is not None:
            starts.take_back(() if reply else surplus.indexes)
        if reply > 0 and kept:
            self.claimed = self.claimed.cut(kept)
            self.payload = self.claimed.payload
        elif reply > 0:
            self.is_released, self._outcome = True, "given back"
        elif reply < 0:
            self._again = True
        elif self.orders is not None:
            self.obey(self.orders)
        if starts is not None and starts.are_over:
            self._end_starting()
        self.count_recorded(1)

    def obey(self, orders: Orders) -> None:
        """Move the batch's deadline; cancel what was decided to be cancelled: what has not started never does."""
        self.orders = orders
        if orders.deadline is not None and (self._runs or self.starts is not None):
            self._move_deadline(orders.deadline)
        for run in list(self._runs):
            reason = orders.why_not_to_run(run.index)
            if reason is not None:
                run.cancel(reason)
        if self.starts is not None:
            for index, why in self.starts.refuse(orders).items():
                self.put(self.rows.cancelled(index, self.starts.job(index), why, self.claimed.attempt(index)))

    def _move_deadline(self, deadline: float) -> None:
        if self._clocks.move_deadline(deadline):
            if self.starts is not None:
                self.starts.look_again()
            for run in self._runs:
                run.reclock(self._clocks)

    @property
    def longest_grace(self) -> float:
        """How long, s, its jobs may clean up once they are stopped."""
        return max((run.grace for run in self._runs), default=0.0)

    @property
    def job_tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of its jobs that run."""
        return [run.task for run in self._runs]

    def _describe_group(self, function: str) -> None:
        self._common = encode_common(function, self.runner.worker_id, self.payload.enqueued_at)
        self.rows = Rows(function, self.runner.clock, self.runner.result_limit)

    async def _start_until_stopped(self, starts: Starts) -> None:
        starting = self._starting = asyncio.current_task()
        try:
            if not self._is_stopped:
                if self.orders is not None:
                    self.obey(self.orders)
                await starts.run()
                self._has_started = True
        except asyncio.CancelledError:
            # A cancel of our own ends nothing but the starting.
            if not self._is_stopped or starting is None or starting.uncancel() > 0:
                raise
        finally:
            self._starting = None
            starts.close()
            self.starts = None  # a circle, which would keep all arguments until the garbage collector comes

    def enlist(self, run: JobRun) -> None:
        """Take note of a run that others may stop."""
        self._runs[run] = None

    def note_start(self, index: int) -> None:
        """Write down for the supervisor that a job starts."""
        self._begun[self._row] = index + 1

    def took_turn(self) -> None:
        """Hand on what has ended at once; tell the supervisor if no job is at work: none is to blame for a death."""
        if not self._runs:
            self._begun[self._row] = 0.0
        self._hand_on()
        self._wake_if_idle()

    def conclude(self, run: JobRun) -> None:
        """Record what a run has ended in, or let it run again; one that had a slot to itself gives it back."""
        outcome = run.outcome
        if isinstance(outcome, Returned):
            row = self.rows.returned(run.index, run.job, run.function, run, outcome.value, run.attempt)
            self._fresh.append(row)
            if len(row[2]) > _LARGE or len(self._fresh) >= min(_MOST_FRESH, self.runner.recorder.room_left):
                self._hand_on()
        else:
            self._conclude_odd(run)
        if run.process is not None:
            self.runner.processes.places.took(run.finished - run.started)
            self.runner.processes.give(run.process, is_fit=leaves_process_fit(outcome))
        self._runs.pop(run, None)
        if run.has_awaited or not run.has_begun:
            self.runner.slots.took(run.finished - run.started)
            self.runner.slots.give()
            self.took_turn()

    def _conclude_odd(self, run: JobRun) -> None:
        before, delay = self.claimed.crashes_under(run.index), self._delay_before_retry(run)
        crash = crash_of(run, before, self.runner.clock, self.runner.worker_id)
        if crash is not None:
            self.put(lose(self, run.index, run.job, [*before, crash]))
        elif delay is not None:
            self._run_again(run, delay)
        else:
            if isinstance(run.outcome, TimedOut):
                run.outcome.limit = self._clocks.limit_of(run.outcome.phase, run.job, run.outcome.limit)
            row = self.rows.ended(run.index, run.job, run.function, run, run.attempt)
            if row is not None:
                self.put(row)
            elif run.has_begun:
                self.handed_back[run.index] = self.rows.attempt(run, run.attempt, self.runner.worker_id)

    def _delay_before_retry(self, run: JobRun) -> float | None:
        delay = delay_before_retry(run.outcome, self._options, run.function, self.claimed.failures.get(run.index, 0))
        return delay if delay is not None and self._clocks.allow_start(run.job, delay) else None

    def _run_again(self, run: JobRun, delay: float) -> None:
        self._outcome = "ended"
        self._again = self._again or self.claimed.payload.index is not None
        self._unrecorded += 1
        failures = self.claimed.failures.get(run.index, 0) + 1
        say_again(self.batch_id, run.index, delay, run.attempt)
        attempt = self.rows.attempt(run, run.attempt, self.runner.worker_id)
        deferred = Deferred(self.claimed.chunk_id, self.claimed.payload, run.index, failures, delay, attempt)
        self.runner.retries.put(deferred, self)

    def put(self, row: Row) -> None:
        """Record a result."""
        self._fresh.append(row)
        self._hand_on()

    def _hand_on(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._unrecorded += len(fresh)
            for row in fresh:
                if row[1] != "success":
                    self._outcome = "ended"
            self.runner.recorder.put(self.batch_id, self._common, fresh, self)
            if self._tells_jobs:
                say_done(self.batch_id, fresh)

    def over_with(self, count: int) -> OverChunk | None:
        """Say what is let go of, if all is over once so many results, now on their way, are written."""
        has_more = self.starts is not None and not self.starts.are_over
        if has_more or self._runs or self._fresh or self._again or count < self._unrecorded:
            return None
        self.runner.leases.expect_release(self.claimed.chunk_id)
        place = self.payload.place if count == self.payload.jobs else ""
        return self.claimed.chunk_id, self.payload.first, self._outcome, place

    def note_release(self) -> None:
        """Take note that the chunk has been let go of."""
        self.is_released = True

    def count_recorded(self, count: int) -> None:
        """Take note that so many more of its results have been written."""
        self._unrecorded -= count
        self._wake_if_idle()

    async def until_idle(self) -> None:
        """Wait until all that was started has ended and is recorded."""
        while self._runs or self._unrecorded:
            self._idle.clear()
            await self._idle.wait()

    def _wake_if_idle(self) -> None:
        if not self._runs and not self._unrecorded:
            self._idle.set()
