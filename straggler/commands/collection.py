"""One collector of one batch: results go to the file, the tally and the screen as they come."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from producer.batch import Batch
from producer.export import Export
from producer.pictures.summary import Tally, facts, summarize
from producer.progress import Progress, Scene
from protocol.batches import BatchStatus
from protocol.errors import BatchClosedError, BatchLostError, BatchNotFoundError, StragglerError
from protocol.results import Result
from straggler.commands.feed import Feed
from straggler.commands.notes import notes
from straggler.commands.output import print_json
from straggler.commands.process import SOME_DID_NOT_SUCCEED, SUCCEEDED

# How often the batch's header is read for the screen, s, and how often its live workers are counted.
_WATCH_INTERVAL = 0.5
_WORKERS_INTERVAL = 5.0
# How often a batch is looked for that is being submitted, s.
_SEARCH_INTERVAL = 0.02


class Collection:
    """Collect a batch.

    Args:
        batch: The batch.
        export: Where its results go.
        expected: How many jobs it has, if that is known before the batch is closed.
        resumed: Whether an earlier collector has had some of the results.
        shows_workers: Whether the screen is to tell how many workers are alive.
    """

    def __init__(
        self,
        batch: Batch[Any],
        export: Export | None,
        *,
        expected: int | None = None,
        resumed: bool = False,
        shows_workers: bool = True,
    ) -> None:
        self.batch = batch
        self.tally = Tally()
        self.cursor = batch.cursor
        self._export = export
        self._expected = expected
        self._resumed = resumed
        self._began = time.monotonic()
        self._status: BatchStatus | None = None
        self._shows_workers = shows_workers
        self._workers: int | None = None

    async def run(self, progress: Progress, timeout: float | None = None) -> None:
        """Collect until the batch is complete.

        Args:
            progress: The screen.
            timeout: Longest time in all, s.

        Raises:
            TimeoutError: If the time is up.
            BatchLostError: If the batch is gone.
            ExportError: If the results cannot be written; `cursor` stands before the first that was not.
        """
        if self._export is not None:
            self._export.begin()
        watching = asyncio.create_task(self._watch(progress))
        try:
            async for result in self.batch.as_completed(timeout):
                self._keep(result)
                self.tally.add(result)
                self._show(progress)
            if self._export is not None:
                self._export.complete()
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    def _keep(self, result: Result[Any]) -> None:
        cursor = self.batch.cursor
        if self._export is not None:
            self._export.write(result)
            self._export.mark(cursor)
        self.cursor = cursor

    async def run_beside(self, submitting: asyncio.Task[Batch[Any]], feed: Feed, progress: Progress) -> None:
        """Submit, and collect from the first job on.

        Raises:
            StragglerError: Whatever ends the submission or the collection; both are ended then.
        """
        tasks: set[asyncio.Task[Any]] = {submitting, asyncio.create_task(feed.begun.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            collecting = asyncio.create_task(self._run_once_there(submitting, progress))
            tasks.add(collecting)
            await asyncio.wait({submitting, collecting}, return_when=asyncio.FIRST_EXCEPTION)
            if self._may_be_cut_off and _is_cut_off(submitting):
                await asyncio.wait({collecting})
            for task in (submitting, collecting):
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    @property
    def _may_be_cut_off(self) -> bool:
        """Whether the batch may close before all was submitted, by its own options."""
        return self.batch.options.deadline is not None or self.batch.options.max_failures is not None

    async def conclude(self, *, as_json: bool = False) -> int:
        """Print the closing table, or its facts as JSON; returns the exit code that the batch deserves."""
        with suppress(StragglerError, RedisError):
            self._status = await self.batch.status()
        status = self._status
        total = self.tally.total if status is None or self._resumed else status.total
        if as_json:
            print_json({"batch": self.batch.id, **facts(self.tally, total, self._elapsed())})
        elif total:
            notes.print(summarize(self.tally, total, self._elapsed()))
        if status is None:
            return SUCCEEDED if self.tally.counts["success"] == self.tally.total else SOME_DID_NOT_SUCCEED
        return SUCCEEDED if status.success == status.total else SOME_DID_NOT_SUCCEED

    async def _run_once_there(self, submitting: asyncio.Task[Any], progress: Progress) -> None:
        was_submitted = False
        while not await self._is_there():  # the first jobs of a slow input are not sent yet
            if was_submitted:
                raise BatchLostError(self.batch.id)
            await asyncio.sleep(_SEARCH_INTERVAL)
            was_submitted = submitting.done()
        await self.run(progress)

    async def _is_there(self) -> bool:
        try:
            await self.batch.status()
        except BatchLostError:
            raise
        except BatchNotFoundError:
            return False
        return True

    def _elapsed(self) -> float:
        if self._status is not None and self._status.finished_at is not None and not self._resumed:
            return self._status.finished_at - self._status.created_at
        return time.monotonic() - self._began

    def _show(self, progress: Progress) -> None:
        status, total = self._status, self._expected
        if total is None and status is not None and status.closed:
            total = status.total
        running, slowest = (None, ()) if status is None else (status.running, status.slowest)
        progress.update(self.tally, Scene(None if self._resumed else total, running, self._workers, slowest))

    async def _watch(self, progress: Progress) -> None:
        counted_at = float("-inf")
        while True:
            with suppress(StragglerError, RedisError):
                self._status = await self.batch.status()
                if self._shows_workers and time.monotonic() - counted_at >= _WORKERS_INTERVAL:
                    counted_at = time.monotonic()
                    self._workers = await self.batch.workers()
            self._show(progress)
            await asyncio.sleep(_WATCH_INTERVAL)


def _is_cut_off(submitting: asyncio.Task[Any]) -> bool:
    """Whether the batch was closed before all was submitted: what it has is collected before that is said."""
    return submitting.done() and not submitting.cancelled() and isinstance(submitting.exception(), BatchClosedError)
