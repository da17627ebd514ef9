"""Follow one batch for whoever looks at it: its header and running jobs once a second, its results as they come.

However many people look at a batch, Redis is asked once. Results are read by bounded pages; while the batch runs, the
reading takes half of what the machine has to spare, else a hundredth of a core: the batch may need it all. The counts
on a page are the header's, and always of now; what is drawn from the results says how many of them it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from redis.exceptions import RedisError

from dashboard.digest import Digest
from dashboard.idleness import Idleness
from dashboard.pace import Paces, Speed
from producer.overview.running import read_running
from producer.producer import Producer
from producer.records import START, read_page
from producer.status import parse_options, parse_status, read_header
from protocol.batches import BatchOptions, BatchStatus
from protocol.errors import StragglerError
from protocol.running import RunningJob

logger = logging.getLogger(__name__)

# Nobody needs fresher facts than this, s.
_FRESH = 0.9
# A batch that nobody has looked at for so long, s, is followed no longer; what is known of it is kept for a while.
_LINGER = 60.0
# Entries in one read: each holds up to 256 results or about 1 MiB, and may hold a single small one. As many as take
# about this long to read, s.
_FEWEST_ENTRIES, _MOST_ENTRIES = 1, 128
_READ = 0.01
# How much of a core the reading may take while the batch runs: on a busy machine (5,000 results a second),
# and of what one has to spare, but no more than is of use; beyond the first so many seconds of a core, which read some
# 20,000 results. And after the batch's end.
_SHARE_OF_BUSY, _SHARE_OF_IDLE, _SHARE_AT_MOST, _SHARE_AT_THE_END = 1 / 200, 0.5, 0.1, 0.6
_AT_FIRST = 0.02
_LONGEST_REST = 2.0
# Between two looks at a stream that has been read to its end, s.
_PAUSE = 0.5
# So many results are read within a moment.
_SMALL = 10_000


class _Budget:
    """Time of a core that may be spent: what has not been used is kept, up to a limit.

    Args:
        most: The limit, s; so much there is to begin with.
    """

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._at = time.monotonic()

    def spend(self, spent: float, share: float) -> float:
        """Spend some, s, of what comes in at this share of a core; returns how long to rest, s."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * share) - spent
        self._at = now
        return max(0.0, -self._left / share)


class Follower:
    """What is known of one batch.

    Args:
        producer: Whose Redis.
        batch_id: The batch.
        pace: Remembers how fast it goes.

    Attributes:
        status: As of the last `refresh`.
        options: As it was submitted with.
        running: Its jobs at work, as of then.
        digest: Its results, as far as they have been read.
        speed: How fast it goes.
        is_read: Whether the last of its results has been read.
    """

    status: BatchStatus
    options: BatchOptions
    digest: Digest

    def __init__(self, producer: Producer, batch_id: str, pace: Paces) -> None:
        self._producer = producer
        self.batch_id = batch_id
        self._pace = pace
        self.running: list[RunningJob] = []
        self.speed = Speed(None, None)
        self.is_read = False
        self.problem: str | None = None
        self._after = START
        self._entries = 4
        self._budget = _Budget(_AT_FIRST)
        self._idleness = Idleness()
        self._refreshed_at = float("-inf")
        self._refreshing = asyncio.Lock()
        self._caught_up = asyncio.Event()
        self._looked_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_known(self) -> bool:
        """Whether it has been found."""
        return hasattr(self, "digest")

    async def refresh(self) -> None:
        """Look at the header and the running jobs, unless that was done a moment ago; follow the results from now on.

        Raises:
            BatchNotFoundError: If the batch is gone.
            ProtocolError: If one of its keys is not ours.
        """
        self._looked_at = time.monotonic()
        async with self._refreshing:
            if time.monotonic() - self._refreshed_at > _FRESH:
                await self._look()
                self._refreshed_at = time.monotonic()
        if not self.is_read and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read(), name=f"dashboard-reads-{self.batch_id}")

    def expire(self) -> None:
        """Let the next `refresh` look in any case."""
        self._refreshed_at = float("-inf")

    async def catch_up(self, timeout: float) -> None:
        """Give the reading some time, s, so that a page of a small batch is drawn whole; a large one needs more."""
        if self.status.done - self.digest.count > _SMALL:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._caught_up.wait()

    async def close(self) -> None:
        """Follow it no longer."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _look(self) -> None:
        header = await read_header(self._producer.redis, self.batch_id)
        status = parse_status(self.batch_id, header)
        if not self.is_known or status.created_at != self.status.created_at:
            self._begin(status)
        self.status, self.options = status, parse_options(self.batch_id, header)
        self.speed = self._pace.see(status, self._producer.clock.now())
        is_at_work = status.running and not status.complete
        self.running = await read_running(self._producer.redis, status.queue, self.batch_id) if is_at_work else []

    def _begin(self, status: BatchStatus) -> None:
        """Begin anew: it is seen for the first time, or another batch of the same id stands there now."""
        self.digest, self._after, self.is_read = Digest(status.created_at), START, False

    async def _read(self) -> None:
        try:
            while not self.is_read and time.monotonic() - self._looked_at < _LINGER:
                await self._read_on()
            self.problem = None
        except (StragglerError, RedisError) as error:
            self.problem = str(error)
            logger.warning(
                "the results of batch %s cannot be read: %s", self.batch_id, error,
                extra={"event": "dashboard.unreadable", "batch": self.batch_id},
            )  # fmt: skip

    async def _read_on(self) -> None:
        """Read some results, and rest after it: longer while the batch runs, and where there was nothing to read."""
        began, digest = time.thread_time(), self.digest
        page = await read_page(self._producer.redis, self.batch_id, self._after, self._entries)
        for record in page.records:
            if digest is not self.digest:  # another batch of the same id stands there now
                return
            digest.add_entry(record.entry, record.facts)
            self._after = record.entry
            await asyncio.sleep(0)  # a page that somebody asks for waits no longer for its turn
        self.is_read = page.is_last
        if page.is_last or not page.records:
            self._caught_up.set()
        else:
            self._caught_up.clear()
        spent = time.thread_time() - began
        more = self._entries * 2 if spent < _READ else self._entries // 2
        self._entries = max(_FEWEST_ENTRIES, min(more, _MOST_ENTRIES))
        rest = min(self._budget.spend(spent, self._share()), _LONGEST_REST)
        await asyncio.sleep(rest if page.records else _PAUSE)

    def _share(self) -> float:
        if self.status.complete:
            return _SHARE_AT_THE_END
        return max(_SHARE_OF_BUSY, min(_SHARE_OF_IDLE * self._idleness.cores(), _SHARE_AT_MOST))
