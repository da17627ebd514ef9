"""`Producer` without `await`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from producer.producer import Producer as AsyncProducer
from protocol.errors import UsageError
from protocol.jobs import JobSpec, JobSpecs
from protocol.settings import Settings
from straggler.sync.batch import Batch
from straggler.sync.portal import Portal
from straggler.sync.twins import batch_of_producer, fed, of_producer

R = TypeVar("R")


class Producer:
    """Submit batches to a Redis, and attach to batches that are there: `straggler.Producer`, without `await`.

    A context manager. Its thread is started by the first call, and ended by `close`. Several threads may use it at a
    time, and each thread may have one of its own.

    Args:
        url: The Redis; `redis://`, `rediss://`, `unix://` or `memory://`. By default the settings'.
        queue: The queue to submit to.
        settings: Read from the environment if not given.

    Raises:
        RedisUnavailableError: On entry, if Redis does not answer.
    """

    def __init__(self, url: str | None = None, *, queue: str | None = None, settings: Settings | None = None) -> None:
        self.portal = Portal()
        self.twin = AsyncProducer(url, queue=queue, settings=settings)

    @property
    def url(self) -> str:
        """The Redis."""
        return self.twin.url

    @property
    def queue(self) -> str:
        """The queue to submit to."""
        return self.twin.queue

    @property
    def settings(self) -> Settings:
        """As they were read."""
        return self.twin.settings

    def __enter__(self) -> Self:
        try:
            self.portal.call(self.twin.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread; batches go on."""
        with suppress(UsageError):  # it is closed
            self.portal.call(self.twin.close())
        self.portal.close()

    if TYPE_CHECKING:

        @overload
        def submit(
            self,
            jobs: JobSpecs[R] | Iterable[JobSpec[R]] | AsyncIterable[JobSpec[R]],
            *,
            batch_id: str | None = None,
            on_complete: JobSpec[Any] | None = None,
            **options: Any,
        ) -> Batch[R]: ...
        @overload
        def submit(
            self, jobs: Any, *, batch_id: str | None = None, on_complete: JobSpec[Any] | None = None, **options: Any
        ) -> Batch[Any]: ...
        def submit(self, jobs: Any, **options: Any) -> Batch[Any]:
            """Submit a batch; see `straggler.Producer.submit`."""

    else:
        submit = fed(AsyncProducer.submit)

    open_batch = batch_of_producer(AsyncProducer.open_batch)
    attach = batch_of_producer(AsyncProducer.attach)
    batches = of_producer(AsyncProducer.batches)
    running = of_producer(AsyncProducer.running)
    workers = of_producer(AsyncProducer.workers)
