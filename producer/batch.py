"""`Batch`: a handle on a batch in Redis, from which its results are collected."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from typing import Any, Generic, TypeVar

from producer.collect import Cursor, read, read_groups
from producer.control.deletion import Deletion
from producer.control.steering import Steering
from producer.overview.attempts import read_attempts
from producer.overview.running import SLOWEST_TOLD, read_running
from producer.redrives.lineage import read_lineage
from producer.redrives.origins import Selection
from producer.redrives.redrive import Redrive
from producer.sized import SizedIterator
from producer.waiting import ReturnWhen, Waited, Waiting
from producer.watch import Watch
from protocol.attempts import Attempt
from protocol.batches import BatchOptions, BatchStatus
from protocol.connection import Scripts
from protocol.errors import OptionError
from protocol.jobs import JobSpec
from protocol.notebook import handle_html, status_html
from protocol.results import Result
from protocol.settings import DEFAULT_MAX_ARGUMENTS_BYTES

R = TypeVar("R")


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"


RAISE = _Raise()
"""`gather(default=RAISE)`: raise for the first job that did not succeed."""


class Batch(Steering, Generic[R]):
    """A batch in Redis. It goes on whatever becomes of this handle; others may be attached to it at the same time.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: The queue that its jobs wait in.
        options: As it was submitted with.
        cursor: Where `as_completed` begins; by default before the first result.
        is_there: Whether it is known to be in Redis; if not, it is found as soon as it is.
        limit_bytes: Longest arguments of one job that is added, bytes of JSON.
        total: How many jobs it has, if it is known to be closed.
        is_new: Whether it has just been submitted, under an id of its own.
    """

    def __init__(
        self,
        scripts: Scripts,
        batch_id: str,
        queue: str,
        options: BatchOptions,
        cursor: str | None = None,
        *,
        is_there: bool = True,
        limit_bytes: int = DEFAULT_MAX_ARGUMENTS_BYTES,
        total: int | None = None,
        is_new: bool = False,
    ) -> None:
        self._total = total
        watch = Watch(scripts, batch_id, queue, is_there=is_there)
        watch.is_new = is_new and options.deadline is None
        watch.closed_with = total
        super().__init__(scripts, batch_id, queue, options, watch, limit_bytes)
        self._cursor = Cursor.parse(cursor) if cursor else Cursor()
        self._waiting = Waiting(self._redis, batch_id, self._watch)

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    def _repr_html_(self) -> str:
        seen = self._watch.seen
        return handle_html(self.options.name, self.id, self.queue) if seen is None else status_html(seen)

    @property
    def cursor(self) -> str:
        """Where `as_completed` is: give it to `Producer.attach` to go on from there in another process."""
        return str(self._cursor)

    def as_completed(self, timeout: float | None = None, *, close_when_idle: bool = False) -> SizedIterator[Result[R]]:
        """Yield results as they are recorded, until the batch is complete.

        Every result comes once: a second loop over the same handle goes on where the first was left (`cursor`).
        Leaving the loop cancels nothing. Once the batch's deadline has passed, whoever collects sees to it that each
        job has its result, even if all workers are gone. That there are none is logged, after a second without a
        result. Its `len` is how many will come, for progress bars, if it begins at the beginning of a batch that is
        closed.

        Args:
            timeout: Longest time in all, s.
            close_when_idle: For an open batch to which this loop adds: close it once all jobs that it has are done,
                this loop has taken all their results, and comes back for more.

        Raises:
            TimeoutError: If the time is up; the batch goes on.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        when_taken = self._close if close_when_idle else None
        results = read(self._redis, self.id, self._cursor, self._watch, timeout, when_taken)
        return SizedIterator(results, self.total_from_here)

    @property
    def total_from_here(self) -> int | None:
        """How many results `as_completed` will yield; None where that is not known."""
        is_whole = self._total is not None or (self._watch.seen is not None and self._watch.seen.closed)
        if not is_whole or self._cursor != Cursor():
            return None
        return self._watch.total if self._total is None else self._total

    def as_recorded(
        self, timeout: float | None = None, *, close_when_idle: bool = False
    ) -> AsyncGenerator[list[Result[R]], None]:
        """Yield results as `as_completed` does, those at a time that were recorded together: 1 to 256, up to a few MiB.

        For who writes them elsewhere in bulk. The cursor moves by such groups.

        Args:
            timeout: Longest time in all, s.
            close_when_idle: As for `as_completed`.

        Raises:
            As `as_completed`.
        """
        when_taken = self._close if close_when_idle else None
        return read_groups(self._redis, self.id, self._cursor, self._watch, timeout, when_taken)

    async def wait(
        self,
        timeout: float | None = None,
        return_when: ReturnWhen = "ALL_COMPLETED",
        *,
        among: Collection[int] | None = None,
    ) -> Waited[R]:
        """Wait like `asyncio.wait`: never raises for a slow job, cancels nothing.

        `done` are the results of all jobs that are over when it returns, also of those that were before. To go on after
        FIRST_COMPLETED, wait for what was left, as with asyncio.wait; each result is read once then:

            done, pending = await batch.wait(return_when=FIRST_COMPLETED)
            while pending:
                done, pending = await batch.wait(return_when=FIRST_COMPLETED, among=pending)

        A batch that is open is not over: ALL_COMPLETED waits until it is closed, unless `among` says for which jobs.
        Where there is nothing to wait for it returns at once (asyncio.wait raises).

        Args:
            timeout: Longest wait, s; 0 tells what is done by now.
            return_when: `FIRST_COMPLETED`, `FIRST_EXCEPTION` (the first result but a success; if there is none, as
                ALL_COMPLETED) or `ALL_COMPLETED`.
            among: Indexes of the jobs to wait for; by default all jobs of the batch.

        Raises:
            OptionError: If `return_when` is none of the three, or the batch has no such job.
            RedisUnavailableError: If Redis did not answer in all of `timeout`; without one it is waited for.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        return await self._waiting.wait(timeout, return_when, among)

    async def results(self, *, lineage: bool = False) -> list[Result[R]]:
        """Wait for the whole batch and return all results, in order of submission.

        Args:
            lineage: Whether to merge in those of all its redrives, and of what it is a redrive of: one result for each
                job that was submitted first, the latest redrive's, under that job's `index`. Waits for them all.

        Raises:
            BatchLostError: If the batch, or one of the lineage, is gone.
        """
        if lineage:
            return await read_lineage(self._scripts, self.id)
        # A Redis that is restarted meanwhile without its last writes has some of them recorded again.
        found = {result.index: result async for result in read(self._redis, self.id, Cursor(), self._watch)}
        return [found[index] for index in sorted(found)]

    async def gather(self, default: Any = RAISE) -> list[R | Any]:
        """Wait for the whole batch and return all values, in order of submission.

        Args:
            default: Stands in for the value of each job that did not succeed.

        Raises:
            UnsuccessfulError: Without a default, for the first job that did not succeed: JobTimeoutError, ...
        """
        results = await self.results()
        if default is RAISE:
            return [result.unwrap() for result in results]
        return [result.value if result.status == "success" else default for result in results]

    async def retry(
        self,
        /,
        statuses: Iterable[str] | str | None = None,
        *,
        indexes: Iterable[int] | None = None,
        where: Callable[[Result[Any]], Any] | None = None,
        batch_id: str | None = None,
        on_complete: JobSpec[Any] | None = None,
        **overrides: Any,
    ) -> Batch[R]:
        """Redrive: submit a new batch of just those jobs, with their arguments and options as they were.

        The two are linked: `status().parent` and `.children`. Of a batch that goes on, jobs that have their result by
        now are chosen. If there are none, the new batch is empty, and complete.

        Args:
            statuses: Jobs that ended so: "timeout", "failure", "cancelled", "lost"; those that succeeded are not kept.
                By default ("timeout", "lost"), or, where `indexes` or `where` choose, all four.
            indexes: Only jobs with one of these.
            where: Only jobs for whose result this is true.
            batch_id: Chosen by the caller: the same again adds nothing twice, and goes on with the jobs that were
                chosen first. By default each call makes a new batch.
            on_complete: As in `Producer.submit`; the parent's is not started again.
            **overrides: Options that are not to be as they were, see `BatchOptions`. A `timeout` or `queue_timeout`
                holds for jobs, too, that had one of their own.

        Raises:
            OptionError: If a status, an index or an option cannot be, or the id is another batch's.
            BatchLostError: If the batch is gone: deleted, or past its lifetime (`keep_results`).
            ProtocolError: If one of its keys in Redis is not ours.
        """
        selection = Selection.of(statuses, indexes, where)
        redrive = Redrive(self._scripts, self.id, batch_id, on_complete, overrides)
        await redrive.run(selection)
        return Batch(self._scripts, redrive.batch_id, redrive.queue, redrive.options)

    async def delete(self) -> None:
        """Remove the batch from Redis, with all its results: nothing of it is to be had any more.

        Jobs that wait never start, those that run are stopped, with cleanup, and end in no result. A batch that is gone
        already stays so; its redrives and its callback's batch stay. Whoever collects it gets a BatchLostError. Workers
        hear of it within seconds: until then its id is not to be used again, as what they end would count there.
        """
        await Deletion(self._scripts, self.id, self.queue).run()

    async def status(self) -> BatchStatus:
        """Count the batch's jobs by where they are, and name the slowest of those at work.

        A few small reads, however large the batch is.

        Raises:
            BatchLostError: If the batch is gone.
            ProtocolError: If its header is not ours.
        """
        found = await self._watch.status()
        if not found.running:
            return found
        slowest = await read_running(self._redis, found.queue, self.id)
        return found.model_copy(update={"slowest": tuple(slowest[:SLOWEST_TOLD])})

    async def attempts(self, index: int) -> list[Attempt]:
        """Return a job's attempts that did not become its result, oldest first; that one is told by the result.

        Those that failed or timed out and ran again, those under which the worker died (of a job that is lost, the last
        one, too), and those that a worker has handed back. Of very many not all are kept: the first and the last 19 of
        a job, 32 MiB of a batch.

        Raises:
            OptionError: If the batch has no such job.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        total = (await self._watch.status()).total
        if not 0 <= index < total:
            raise OptionError(f"attempts({index!r}): batch {self.id} has jobs 0 to {total - 1:,}")
        return await read_attempts(self._redis, self.id, index)

    async def workers(self) -> int:
        """Count the live workers of the batch's queue.

        Raises:
            As `status`.
        """
        return await self._watch.workers()
