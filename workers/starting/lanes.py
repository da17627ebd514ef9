"""Lanes: tasks that run jobs one after another, for as long as these end without awaiting anything.

A task, its timer and its turn of the loop were two thirds of what a no-op job cost. A job that awaits keeps the task
that it has begun in, so to a job its task is its own: no other job follows in it, and whoever cancels it reaches no
other. What came before in it has ended, and whatever that has left behind cannot cancel it (`workers.starting.tasks`).
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context, copy_context
from typing import Protocol

from workers.calling.context import enter
from workers.calling.runs import JobRun
from workers.starting.tasks import guarded

# So long, s, jobs may follow each other before everything else on the loop has its turn.
_TURN = 0.005
# Past a turn that was longer than this, s, everything else has turns enough: results leave, and so do jobs that wait
# behind, for other workers.
_LONG_TURN = 0.05


class GivesJobs(Protocol):
    """Where a lane's jobs come from."""

    def next_run(self) -> JobRun | None:
        """Make the run of the next job, which has the slot of the one before it; None if none can start now."""

    def next_lane(self) -> JobRun | None:
        """Make the run of the next job, which takes a slot of its own; None if none can start at once."""

    def awaits(self, run: JobRun, pace: float) -> None:
        """Take note that a run awaits something, and so keeps task and slot; and of the pace of those before it."""

    def took_turn(self, pace: float) -> None:
        """Give the slot back, and take note of how many jobs/s have ended at once."""

    def take_slot(self) -> bool:
        """Take a slot if there is one."""


class Lane:
    """Run jobs.

    Args:
        source: Where they come from.
        first: The first one.
        context: What each job's context is a copy of.
        moved_on: Set once no more jobs can start here: this lane has ended, or a job awaits something, which keeps the
            task for itself, and the next one could not begin a lane of its own at once.
    """

    def __init__(
        self, source: GivesJobs, first: JobRun, context: Context, moved_on: asyncio.Future[None] | None = None
    ) -> None:
        self._source = source
        self._context = context
        self._moved_on = moved_on
        call = self._drive(first)
        self._task = first.task = guarded(asyncio.get_running_loop(), call, first, context=context.copy())
        if moved_on is not None:
            self._task.add_done_callback(self._move_on)

    async def _drive(self, first: JobRun) -> None:
        task, next_run, count = self._task, self._source.next_run, 0
        run = first
        began = time.monotonic()
        try:
            while True:
                task.run, run.task = run, task
                enter(run)  # its context is a copy of this one, so that `current_job()` finds it
                if run.begin(copy_context()):
                    self._source.awaits(run, count / (time.monotonic() - began) if count else 0.0)
                    self._begin_next_lane()
                    await run.go_on()
                    return
                count += 1
                if run.finished > began + _TURN:
                    task.run = None
                    self._source.took_turn(count / (run.finished - began))
                    for _ in range(3 if run.finished > began + _LONG_TURN else 1):
                        await asyncio.sleep(0)
                    began, count = time.monotonic(), 0
                    if not self._source.take_slot():
                        return
                following = None if task.was_cancelled else next_run()
                if following is None:
                    break
                run = following
            first.function.awaits = False
            self._source.took_turn(count / (time.monotonic() - began) if count else 0.0)
        finally:
            # Task and context know the run: circles, which only the garbage collector would find, 13 objects a job. It
            # held the loop for 10 ms a second, with 100 slots of jobs of 20 ms, and for 2 ms every 80.
            task.run = None
            del run.task

    def _begin_next_lane(self) -> None:
        if self._moved_on is None or self._moved_on.done():
            return
        run = self._source.next_lane()
        if run is None:
            self._moved_on.set_result(None)
        else:
            Lane(self._source, run, self._context, self._moved_on)
        self._moved_on = None

    def _move_on(self, _: object) -> None:
        if self._moved_on is not None and not self._moved_on.done():
            self._moved_on.set_result(None)
