"""When each job of a chunk starts: in turn, as slots are free; suspicious ones alone, before all others.

Jobs of a function that awaits start each in a task of its own, all of them that have slots at once; those of others
follow each other in one (`workers.starting.lanes`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextvars import copy_context
from typing import Any

from protocol.control import Orders
from protocol.jobs import JobSpec
from protocol.results import Phase
from workers import registry
from workers.calling.runs import JobRun, read_arguments, read_call
from workers.crashes import is_poison
from workers.processes import Process, ProcessDiedError
from workers.starting.alike import Alike
from workers.starting.lanes import Lane
from workers.starting.lateness import Lateness
from workers.starting.suspects import is_suspicious, lose
from workers.starting.unstarted import Surplus, Unstarted
from workers.starting.view import StartsJobs
from workers.timing.clocks import ChunkClocks
from workers.timing.silence import Silence


class Starts:
    """Start the jobs of one chunk.

    Args:
        chunk: The chunk.
        clocks: By what clocks its jobs run.
        jobs: Its jobs, from the first on that is to run.
    """

    def __init__(self, chunk: StartsJobs, clocks: ChunkClocks, jobs: Sequence[JobSpec[Any]]) -> None:
        self._chunk = chunk
        self._runner = chunk.runner
        self._claimed = chunk.claimed
        self._clocks = clocks
        self._jobs = jobs
        self._first = chunk.claimed.payload.start
        self._run_of = chunk.runner.runs_of(clocks.options)
        indexes, places = chunk.claimed.open_jobs(), chunk.runner.processes.places
        self._unstarted = Unstarted(indexes, self._first, jobs, chunk.runner.slots, places)
        self._lateness = Lateness(self._unstarted, jobs, self._first, clocks, chunk.runner.clock, self._put_late)
        self._alike = Alike.of(chunk, chunk.claimed, clocks, jobs)
        # One job's end may start another, which is to know nothing of that.
        self._context = copy_context()

    def job(self, index: int) -> JobSpec[Any]:
        """Return a job of the chunk."""
        return self._jobs[index - self._first]

    @property
    def are_over(self) -> bool:
        """Whether no job is left that could start."""
        return self._unstarted.are_over

    def refuse(self, orders: Orders) -> dict[int, str]:
        """Take out the jobs that shall not start any more; returns why of each."""
        waiting = self._unstarted.every()
        refused = {index: why for index in waiting if (why := orders.why_not_to_start(index)) is not None}
        self._unstarted.take_out(refused)
        return refused

    def look_again(self) -> None:
        """Look at each job's clocks from now on, as the batch's deadline has moved."""
        self._alike = None
        self._lateness.watch()

    def close(self) -> None:
        """Let go of what has not started."""
        self._unstarted.clear()
        self._lateness.close()
        del self._lateness  # it knows whom to tell: a circle

    def is_held_up(self) -> bool:
        """Whether jobs have waited in vain since this was last asked; those of an unhappy chunk stay together."""
        return not self._claimed.crashes and self._unstarted.is_held_up()

    def withhold(self, least: int) -> Surplus | None:
        """Start no more of what may be given back, so that `least` jobs stay; None if that cannot be."""
        self._unstarted.waits_for.stall()
        surplus = self._unstarted.withhold(least)
        # What runs again after a failure does so by the chunk in which it stood.
        if surplus is not None and surplus.kept and self._claimed.failures:
            self._unstarted.take_back(surplus.indexes)
            return None
        return surplus

    def take_back(self, indexes: Sequence[int]) -> None:
        """Start what was withheld, after all; nothing, if others have it now."""
        self._unstarted.take_back(indexes)
        self._lateness.watch()

    async def run(self) -> None:
        """Start all jobs."""
        recorder, unstarted = self._runner.recorder, self._unstarted
        self._lateness.watch()
        if self._claimed.crashes:
            await self._sift()
        while unstarted.left or await unstarted.come_back():
            if recorder.is_full:
                await recorder.room()
            await self._start_next(has_place=await self._take_slot(is_plain=unstarted.is_next_plain))

    async def _take_slot(self, *, is_plain: bool) -> bool:
        """Take a slot, and before it a place in a process for a plain function; returns whether that was taken, too."""
        slots, places = self._runner.slots, self._runner.processes.places
        if is_plain:
            await places.take()
        if not slots.try_take():
            try:
                await slots.take(self._use_slot)
            except asyncio.CancelledError:
                if is_plain:
                    places.give()
                raise
        return is_plain

    async def _start_next(self, *, has_place: bool) -> None:
        """Start a job that has its slot, and with it those behind it that can follow at once."""
        unstarted = self._unstarted
        if not unstarted.left or unstarted.is_next_plain != has_place:  # cancelled or given back meanwhile
            self._runner.slots.give()
            if has_place:
                self._runner.processes.places.give()
            return
        index = unstarted.pop()
        self._runner.slots.tell()
        if has_place:
            await self._start_in_process(index)
            return
        run = self._make_run(index)
        if run is None:
            self._runner.slots.give()
            return
        self._chunk.enlist(run)
        if run.function.awaits:
            Lane(self, run, self._context)
        else:
            moved_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            Lane(self, run, self._context, moved_on)
            await moved_on

    def _use_slot(self) -> bool:
        """Start a job in the slot of one that has just ended: two turns of the loop before `run` would, 15 us cheaper.

        Returns:
            Whether it could, and there are more.
        """
        alike = self._alike
        if alike is None or self._runner.recorder.is_full:
            return False
        left = self._unstarted.left
        if len(left) < 2 or not alike.awaits(left[-1]):  # the last one is for `run`, which ends with it
            return False
        Lane(self, self._start_alike(alike), self._context)
        return True

    def next_lane(self) -> JobRun | None:
        """Make the run of the next job, which takes a slot of its own; None if none can start at once."""
        alike = self._alike
        if alike is None or not self._unstarted.left or self._runner.recorder.is_full or not self.take_slot():
            return None
        return self._start_alike(alike)

    def _start_alike(self, alike: Alike) -> JobRun:
        run = alike.run(self._unstarted.pop())
        self._runner.slots.tell()
        self._chunk.enlist(run)
        return run

    def next_run(self) -> JobRun | None:
        """Make the run of the next job, which has the slot of the one before it; None if none can start now."""
        unstarted = self._unstarted
        while unstarted.left and not self._runner.recorder.is_full:
            if self._alike is not None:
                return self._alike.run(unstarted.pop())
            if unstarted.is_next_plain:
                return None
            run = self._make_run(unstarted.pop())
            if run is not None:
                return run
        return None

    def awaits(self, run: JobRun, pace: float) -> None:
        """Take note that a run awaits something, and so keeps task and slot; and of the pace of those before it."""
        run.has_awaited = True
        # One of many that hangs says nothing of the others: with a task each they took four times as long.
        run.function.awaits = not pace
        self._chunk.enlist(run)
        if pace:
            self._chunk.took_turn()
        self._runner.slots.took_turn(pace)
        self._runner.slots.go_on()

    def took_turn(self, pace: float) -> None:
        """Give the slot back, and take note of how many jobs/s have ended at once."""
        self._chunk.took_turn()
        self._runner.slots.give()
        self._runner.slots.took_turn(pace)

    def take_slot(self) -> bool:
        """Take a slot if there is one."""
        return self._runner.slots.try_take()

    def _put_late(self, index: int, limit: float, phase: Phase) -> None:
        attempt = self._claimed.attempt(index)
        self._chunk.put(self._chunk.rows.not_started(index, self.job(index), limit, phase, attempt))

    async def _sift(self) -> None:
        """Give up the jobs under which workers have died too often, and run the suspicious ones alone."""
        for index in self._unstarted.left[::-1]:
            crashes = self._claimed.crashes_under(index)
            if index not in self._unstarted.left:  # cancelled meanwhile
                continue
            if is_poison(crashes):
                self._unstarted.take_out((index,))
                self._chunk.put(lose(self._chunk, index, self.job(index), crashes))
            elif is_suspicious(crashes):
                await self._run_alone(index)
        if self._unstarted.left:
            await self._say_at_work(None)

    async def _run_alone(self, index: int) -> None:
        """Run a job in a process of its own, whatever it is, and nothing else of this chunk meanwhile."""
        await self._take_slot(is_plain=True)
        if index not in self._unstarted.left:
            self._runner.slots.give()
            self._runner.processes.places.give()
            return
        self._unstarted.take_out((index,))
        await self._start_in_process(index, alone=True)
        await self._chunk.until_idle()

    async def _say_at_work(self, index: int | None) -> None:
        """Say which job runs alone, or that all may run; without the lease none may."""
        claimed = self._claimed
        if not await self._runner.leases.say_at_work(claimed.chunk_id, claimed.payload.batch_id, index):
            self._chunk.stop()
            await asyncio.sleep(0)  # where the cancel comes out

    async def _start_in_process(self, index: int, *, alone: bool = False) -> None:
        """Start a job that has its slot and its place in a process."""
        unstarted = self._unstarted
        unstarted.at_door = index
        process: Process | None = None
        run: JobRun | None = None
        try:
            process = await self._runner.processes.ready()
            if alone:
                await self._say_at_work(index)
            if unstarted.at_door is not None:  # else cancelled meanwhile
                unstarted.at_door = None
                run = self._make_run(index, process)
        except ProcessDiedError as error:  # none can be started
            attempt = self._claimed.attempt(index)
            self._chunk.put(self._chunk.rows.failed(index, self.job(index), error, attempt=attempt))
        finally:
            if run is None:
                self._runner.slots.give()
                if process is not None:
                    self._runner.processes.give(process, is_fit=True)
        if run is not None and process is not None:
            process.report.deadline = time.monotonic() + run.limit
            self._runner.reports[run] = process.report
            self._chunk.enlist(run)
            Lane(self, run, self._context)

    def _make_run(self, index: int, process: Process | None = None) -> JobRun | None:
        """Make a job's run; where it cannot start, that is its result."""
        if self._alike is not None:
            return self._alike.run(index)
        chunk, clocks, attempt = self._chunk, self._clocks, self._claimed.attempt(index)
        # Into a process a job goes with its arguments as they have come.
        job, arguments = (self.job(index), None) if process else read_call(self._jobs, index - self._first)
        try:
            function = registry.find(job.function)
            args, kwargs = read_arguments(function, job, arguments)
            if (late := clocks.late(job)) is not None:
                chunk.put(chunk.rows.not_started(index, job, *late, attempt))
                return None
            call = self._runner.call(job, function, args, kwargs, process)
            bounds = clocks.of(job, function)
            silence = clocks.heartbeat_timeout(job, function)
        except Exception as error:  # noqa: BLE001  # the validators of a job's own types may raise anything
            chunk.put(chunk.rows.failed(index, job, error, attempt=attempt))
            return None
        chunk.note_start(index)
        run = self._run_of(call, bounds, chunk, index, attempt, job, function, process)
        if silence is not None:
            run.silence = Silence(run, silence)
        return run
