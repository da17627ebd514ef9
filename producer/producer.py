"""`Producer`: submit batches, find them again."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from producer.batch import Batch
from producer.control.callbacks import encode_callback
from producer.overview.fleet import workers_alive
from producer.overview.listing import newest, read_statuses
from producer.overview.running import read_running
from producer.status import parse_options, parse_status, read_header, read_status
from producer.submission import Submission
from producer.tracing import stamped, submitting
from protocol.batches import BatchOptions, BatchStatus, checked_id
from protocol.batches import options as make_options
from protocol.chunks import LARGEST_AMONG_WORKERS
from protocol.clock import RedisClock
from protocol.connection import Scripts, connect
from protocol.reach import reach
from protocol.settings import Settings, checked_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from protocol.jobs import JobSpec, JobSpecs
    from protocol.running import RunningJob

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Producer:
    """Submit batches to a Redis, and attach to batches that are there. An async context manager.

    Args:
        url: The Redis; `redis://`, `rediss://`, `unix://` or `memory://`. By default the settings'.
        queue: The queue to submit to.
        settings: Read from the environment if not given.

    Attributes:
        largest_chunk: Jobs that travel together at most.

    Raises:
        OptionError: If the URL or the queue's name cannot be.
        RedisUnavailableError: On entry, if Redis does not answer.
    """

    def __init__(self, url: str | None = None, *, queue: str | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.read()
        self.url = url or self.settings.redis_url
        self.queue = checked_queue(queue or self.settings.queue)
        self.redis = connect(self.url)
        self.scripts = Scripts(self.redis)
        self.clock = RedisClock()
        self.largest_chunk = LARGEST_AMONG_WORKERS

    async def __aenter__(self) -> Self:
        await reach(self.url)
        sent = time.monotonic()
        seconds, microseconds = await self.redis.time()
        self.clock.sync(seconds, microseconds, sent, time.monotonic())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; batches go on."""
        await self.redis.aclose(close_connection_pool=True)

    @overload
    async def submit(
        self,
        jobs: JobSpecs[R] | Iterable[JobSpec[R]] | AsyncIterable[JobSpec[R]],
        *,
        batch_id: str | None = None,
        on_complete: JobSpec[Any] | None = None,
        **options: Any,
    ) -> Batch[R]: ...
    @overload
    async def submit(
        self, jobs: Any, *, batch_id: str | None = None, on_complete: JobSpec[Any] | None = None, **options: Any
    ) -> Batch[Any]: ...
    async def submit(
        self, jobs: Any, *, batch_id: str | None = None, on_complete: JobSpec[Any] | None = None, **options: Any
    ) -> Batch[Any]:
        """Submit a batch: stream its jobs into Redis, and close it.

        Args:
            jobs: An iterable or async iterable of `JobSpec`; never held whole in memory.
            batch_id: Chosen by the caller: submitting the same id again adds nothing twice, so that a submission that
                was cut off can be run again. Letters, digits, `_`, `.` and `-`, at most 100.
            on_complete: A job that is started, once, when the batch is complete, whoever is there by then; it gets the
                batch's status as `status`, and is a batch of its own (`BatchStatus.callback`).
            **options: See `BatchOptions`.

        Raises:
            OptionError: If an option cannot be.
            ArgumentsError: If a job's arguments do not fit its function. The batch stays open with the jobs before it:
                submit the mended jobs with the same `batch_id` to go on.
            PayloadTooLargeError: If a job's arguments are over the limit; as above.
            BatchClosedError: If the batch is closed with fewer jobs: it was submitted before, or its deadline has
                passed in the middle.
            BatchLostError: If the batch is gone in the middle of its submission, e.g. with all of Redis' data.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        made = make_options(**options)
        is_new, batch_id = batch_id is None, checked_id(batch_id)
        limit = self.settings.max_arguments_bytes
        with submitting(batch_id, self.queue, made) as made:
            fields = self._fields(batch_id, made, on_complete)
            submission = Submission(self.scripts, batch_id, self.queue, made, limit, self.clock, fields)
            total = await submission.send(jobs, self.largest_chunk)
        logger.info(
            "batch %s is submitted to queue %r", batch_id, self.queue,
            extra={"event": "batch.submitted", "batch": batch_id, "queue": self.queue},
        )  # fmt: skip
        return Batch(self.scripts, batch_id, self.queue, made, limit_bytes=limit, total=total, is_new=is_new)

    async def open_batch(
        self, /, *, batch_id: str | None = None, on_complete: JobSpec[Any] | None = None, **options: Any
    ) -> Batch[Any]:
        """Open a batch to which jobs are added, by `Batch.add` or by its own jobs, until it is closed.

        Args:
            batch_id: As for `submit`; if there is a batch of that id it is gone on with, with its own options.
            on_complete: As for `submit`.
            **options: See `BatchOptions`.

        Raises:
            OptionError: If an option cannot be.
            ProtocolError: If one of its keys in Redis is not ours.
        """
        made, batch_id = stamped(make_options(**options)), checked_id(batch_id)
        fields = {**self._fields(batch_id, made, on_complete), "extendable": "1"}
        limit = self.settings.max_arguments_bytes
        opening = Submission(self.scripts, batch_id, self.queue, made, limit, self.clock, fields)
        await opening.begin()
        return await self.attach(batch_id)

    async def attach(self, batch_id: str, *, cursor: str | None = None) -> Batch[Any]:
        """Find a batch again, from any process.

        Args:
            batch_id: Its id.
            cursor: Where an earlier collector was (`Batch.cursor`); `as_completed` goes on from there.

        Raises:
            BatchNotFoundError: If there is none of that id.
            ProtocolError: If its header is not ours.
        """
        header = await read_header(self.redis, batch_id)
        status, options = parse_status(batch_id, header), parse_options(batch_id, header)
        total = status.total if status.closed else None
        limit = self.settings.max_arguments_bytes
        return Batch(self.scripts, batch_id, status.queue, options, cursor, limit_bytes=limit, total=total)

    async def batches(self, limit: int = 50) -> list[BatchStatus]:
        """List the newest batches that are still kept; one that cannot be read is logged and passed over.

        Raises:
            ProtocolError: If the list itself is not ours.
        """
        return await read_statuses(self.redis, await newest(self.redis, 0, limit))

    async def running(self, batch_id: str | None = None) -> list[RunningJob]:
        """List the jobs that have been at work for the longest time, as their workers told within the last seconds.

        Each worker tells of 50 at most: of what has run for a second, or has told how far it is by `heartbeat`.

        Args:
            batch_id: Of this batch only; by default of all batches on the producer's queue.

        Raises:
            BatchNotFoundError: If there is no batch of that id.
            ProtocolError: If its header is not ours, or the list of workers.
        """
        queue = self.queue if batch_id is None else (await read_status(self.redis, batch_id)).queue
        return await read_running(self.redis, queue, batch_id)

    async def workers(self) -> list[str]:
        """Name the live workers of the producer's queue."""
        return await workers_alive(self.redis, self.queue, self.clock.now())

    def _fields(self, batch_id: str, options: BatchOptions, on_complete: JobSpec[Any] | None) -> dict[str, str]:
        """Say what else a new batch's header holds."""
        if on_complete is None:
            return {}
        limit = self.settings.max_arguments_bytes
        return {"on_complete": encode_callback(on_complete, batch_id, self.queue, options, limit)}
