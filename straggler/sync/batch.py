"""`Batch` without `await`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from producer.batch import Batch as AsyncBatch
from producer.collect import Cursor
from producer.sized import SizedLoop
from protocol.batches import BatchOptions
from protocol.errors import UsageError
from protocol.results import Result
from straggler.sync.portal import Portal
from straggler.sync.twins import batch_of_batch, fed_by_portions, of_any_batch, of_batch

R = TypeVar("R")


class Batch(Generic[R]):
    """A batch in Redis: `straggler.Batch`, without `await`.

    Args:
        portal: Where its twin runs.
        twin: The asynchronous handle.
    """

    def __init__(self, portal: Portal, twin: AsyncBatch[R]) -> None:
        self.portal = portal
        self.twin = twin
        # Results that were fetched and not asked for yet, each with the cursor behind it: those of one entry at most.
        self._ahead: deque[tuple[Result[R], str]] = deque()
        self._cursor = twin.cursor
        self._fetching = threading.Lock()

    def __repr__(self) -> str:
        return f"<sync {self.twin!r}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self.twin.id

    @property
    def queue(self) -> str:
        """The queue that its jobs wait in."""
        return self.twin.queue

    @property
    def options(self) -> BatchOptions:
        """As it was submitted with."""
        return self.twin.options

    @property
    def cursor(self) -> str:
        """Where `as_completed` is: give it to `Producer.attach` to go on from there in another process."""
        return self._cursor

    def _repr_html_(self) -> str:
        return self.twin._repr_html_()

    @property
    def total_from_here(self) -> int | None:
        """How many results `as_completed` will yield; None where that is not known."""
        return None if self._ahead else self.twin.total_from_here

    def as_completed(self, timeout: float | None = None, *, close_when_idle: bool = False) -> SizedLoop[Result[R]]:
        """Yield results as they are recorded, until the batch is complete; see `straggler.Batch.as_completed`."""
        return SizedLoop(self._completed(timeout, close_when_idle=close_when_idle), self.total_from_here)

    def _completed(self, timeout: float | None, *, close_when_idle: bool) -> Generator[Result[R], None, None]:
        with self._groups(timeout, close_when_idle=close_when_idle) as groups:
            while True:
                while self._ahead:
                    result, self._cursor = self._ahead.popleft()
                    yield result
                if not self._fetch(groups):
                    return

    def as_recorded(
        self, timeout: float | None = None, *, close_when_idle: bool = False
    ) -> Generator[list[Result[R]], None, None]:
        """Yield results, those at a time that were recorded together; see `straggler.Batch.as_recorded`."""
        with self._groups(timeout, close_when_idle=close_when_idle) as groups:
            while True:
                if self._ahead:
                    self._cursor = self._ahead[-1][1]
                    group = [result for result, _ in self._ahead]
                    self._ahead.clear()
                    yield group
                if not self._fetch(groups):
                    return

    wait = of_batch(AsyncBatch.wait)
    extend = of_batch(AsyncBatch.extend)
    results = of_batch(AsyncBatch.results)
    gather = of_batch(AsyncBatch.gather)
    add = fed_by_portions(AsyncBatch.add)
    close = of_any_batch(AsyncBatch.close)
    cancel = of_any_batch(AsyncBatch.cancel)
    retry = batch_of_batch(AsyncBatch.retry)
    delete = of_batch(AsyncBatch.delete)
    status = of_batch(AsyncBatch.status)
    attempts = of_any_batch(AsyncBatch.attempts)
    workers = of_batch(AsyncBatch.workers)

    @contextmanager
    def _groups(
        self, timeout: float | None, *, close_when_idle: bool
    ) -> Iterator[AsyncGenerator[list[Result[R]], None]]:
        groups = self.twin.as_recorded(timeout, close_when_idle=close_when_idle)
        try:
            yield groups
        finally:
            with suppress(UsageError):  # the producer is closed, and all that was open with it
                self.portal.call(groups.aclose())

    def _fetch(self, groups: AsyncGenerator[list[Result[R]], None]) -> bool:
        """Fetch the next results, unless another thread does just that; False if there are no more."""
        with self._fetching:
            return bool(self._ahead) or self.portal.call(self._take(groups))

    async def _take(self, groups: AsyncGenerator[list[Result[R]], None]) -> bool:
        before = Cursor.parse(self.twin.cursor)
        try:
            group = await anext(groups)
        except StopAsyncIteration:
            return False
        # Here and not in the thread that asked: one that is interrupted just now must not lose them.
        last = len(group) - 1
        for number, result in enumerate(group):
            behind = self.twin.cursor if number == last else str(Cursor(before.entry, before.taken + number + 1))
            self._ahead.append((result, behind))
        return True
