"""`Batch`: a handle on a batch in Redis, from which its results are collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from producer.cancel import Cancellation, checked_indexes, checked_reason
from producer.collect import Cursor, read, read_present
from producer.lineage import read_lineage
from producer.origins import Selection
from producer.redrive import Redrive
from producer.running import read_running
from producer.watch import Watch
from protocol.batches import BatchOptions, BatchStatus
from protocol.connection import Scripts
from protocol.errors import OptionError
from protocol.jobs import JobSpec
from protocol.results import Result

R = TypeVar("R")

FIRST_COMPLETED = asyncio.FIRST_COMPLETED
FIRST_EXCEPTION = asyncio.FIRST_EXCEPTION
ALL_COMPLETED = asyncio.ALL_COMPLETED


# How many of the slowest jobs a batch's status names.
_SLOWEST = 5


class _Raise:
    def __repr__(self) -> str:
        return "RAISE"


RAISE = _Raise()
"""`gather(default=RAISE)`: raise for the first job that did not succeed."""


class Waited(NamedTuple, Generic[R]):
    """What `Batch.wait` returns: results in order of completion, and the indexes of the jobs that have none yet."""

    done: list[Result[R]]
    pending: list[int]


class Batch(Generic[R]):
    """A batch in Redis. It goes on whatever becomes of this handle; others may be attached to it at the same time.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        queue: The queue that its jobs wait in.
        options: As it was submitted with.
        cursor: Where `as_completed` begins; by default before the first result.
        is_there: Whether it is known to be in Redis; if not, it is found as soon as it is.
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
    ) -> None:
        self._scripts = scripts
        self._redis = scripts.redis
        self.id = batch_id
        self.queue = queue
        self.options = options
        self._cursor = Cursor.parse(cursor) if cursor else Cursor()
        self._watch = Watch(scripts, batch_id, queue, is_there=is_there)

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    @property
    def cursor(self) -> str:
        """Where `as_completed` is: give it to `Producer.attach` to go on from there in another process."""
        return str(self._cursor)

    def as_completed(self, timeout: float | None = None) -> AsyncIterator[Result[R]]:
        """Yield results as they are recorded, until the batch is complete.

        Every result comes once: a second loop over the same handle goes on where the first was left (`cursor`).
        Leaving the loop cancels nothing. Once the batch's deadline has passed, whoever collects sees to it that each
        job has its result, even if all workers are gone. That there are none is logged, after a second without a
        result.

        Args:
            timeout: Longest time in all, s.

        Raises:
            TimeoutError: If the time is up; the batch goes on.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        return read(self._redis, self.id, self._cursor, self._watch, timeout)

    async def wait(
        self,
        timeout: float | None = None,
        return_when: Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"] = "ALL_COMPLETED",
    ) -> Waited[R]:
        """Wait like `asyncio.wait`: never raises for a slow job, cancels nothing.

        Args:
            timeout: Longest wait, s.
            return_when: `FIRST_COMPLETED`, `FIRST_EXCEPTION` (the first result but a success) or `ALL_COMPLETED`.

        Raises:
            OptionError: If `return_when` is none of the three.
        """
        if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
            raise OptionError(f"return_when={return_when!r}: use FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED")
        done: list[Result[R]] = []
        cursor = Cursor()
        try:
            async for result in read(self._redis, self.id, cursor, self._watch, timeout):
                done.append(result)
                if _is_reached(return_when, result):
                    break
        except TimeoutError:  # what was recorded in time is told, even with no time to wait at all
            done += [result async for result in read_present(self._redis, self.id, cursor)]
        total = (await self._watch.status()).total
        return Waited(done, sorted(set(range(total)) - {result.index for result in done}))

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
        found = [result async for result in read(self._redis, self.id, Cursor(), self._watch)]
        return sorted(found, key=lambda result: result.index)

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

    async def cancel(self, indexes: Iterable[int] | None = None, reason: str = "") -> int:
        """Cancel jobs: those that wait never start, those that run are cancelled, with cleanup within `grace`.

        Each ends in a CancelledResult with the reason; results that are recorded stay. Within 0.5 s that holds for all
        that wait, and for all that run and end when they are cancelled, even if no worker is alive. Without indexes the
        whole batch is cancelled and closed: it takes no more jobs, and ends.

        Args:
            indexes: The jobs; None for all.
            reason: Why, for people; at most 200 characters. A job that is cancelled twice keeps its first.

        Returns:
            How many of these jobs had no result yet.

        Raises:
            OptionError: If the batch has no such job, or the reason is too long; nothing is cancelled then.
            BatchLostError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        status = await self._watch.status()
        wanted, why = checked_indexes(status, indexes), checked_reason(reason)
        return await Cancellation(self._scripts, status, self.options, why).run(wanted)

    async def retry(
        self,
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
        return found.model_copy(update={"slowest": tuple(slowest[:_SLOWEST])})

    async def workers(self) -> int:
        """Count the live workers of the batch's queue.

        Raises:
            As `status`.
        """
        return await self._watch.workers()


def _is_reached(return_when: str, result: Result[Any]) -> bool:
    if return_when == FIRST_COMPLETED:
        return True
    return return_when == FIRST_EXCEPTION and result.status != "success"
