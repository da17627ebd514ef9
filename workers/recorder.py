"""Write results to Redis in groups, each job's first result only.

While one group is on its way the next gathers, and while other jobs run a result waits a little for company; so a lone
result leaves at once and a flood leaves in few large pieces. A chunk that is over is let go of with its last results,
by the same script: never before they are recorded, and it costs no call of its own.
While Redis is away, results are held here until it is back; past `limit` nothing new is taken on (`room`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Protocol, cast, get_args

from redis.exceptions import RedisError

from protocol.clock import RedisClock
from protocol.connection import Call, Scripts
from protocol.recording import Over, OverChunk, Row, Success, record_rows, record_successes

logger = logging.getLogger(__name__)

# One script call sets this many bits at most: Redis serves nobody else meanwhile.
ROWS_A_CALL = 256
_BYTES_A_CALL = 1 << 20
_CALLS_A_TRIP = 16

# How long a result waits for company, s, while other jobs run: 1,000 pages in embedded mode took 600 writes without,
# and with half of that 200 slots were filled with jobs of 20 ms to 0.88 of the ideal where they are to 0.90.
_LINGER = 0.004

# Successes that are alike have this many columns, other results fewer: they do not go together.
_COLUMNS = len(get_args(Success))

# What stands in a key of ours and will not change by itself: another kind of value, or a count that is no number.
_SPOILT = re.compile("WRONGTYPE|not an integer|would overflow")
# What only people can mend, such as a password that was changed, is tried again this often, s.
_UNTIL_MENDED = 5.0
# A recorder that closes gives Redis this long, s, for each piece; a worker that was told to stop waits no longer.
_FAREWELL = 2.0


class Recorded(Protocol):
    """Who waits for results to be written."""

    def count_recorded(self, count: int) -> None:
        """Take note that so many more of its results have been written."""


class Owner(Recorded, Protocol):
    """The chunk that results come from, which may be let go of with the last of them."""

    def over_with(self, count: int) -> OverChunk | None:
        """Say what is let go of, if all is over once so many results, now on their way, are written."""

    def note_release(self) -> None:
        """Take note that the chunk has been let go of."""


class Group:
    """Results that share their common fields, and go out together.

    Args:
        batch_id: Their batch.
        common: The shared fields, as JSON.
    """

    def __init__(self, batch_id: str, common: bytes) -> None:
        self.batch_id = batch_id
        self.common = common
        self.rows: list[Row] = []
        self.owners: list[Owner] = []
        # Those that are over with these results.
        self._leaving: list[Owner] = []

    @property
    def size(self) -> int:
        """Bytes of its results."""
        return sum(len(row[2]) for row in self.rows)

    def cut(self, most: int) -> Group:
        """Take off what one script call may carry, `most` rows of them."""
        size = count = 0
        for count, row in enumerate(self.rows[:most], start=1):  # noqa: B007  # read below
            size += len(row[2])
            if size >= _BYTES_A_CALL:
                break
        piece = Group(self.batch_id, self.common)
        piece.rows, self.rows = self.rows[:count], self.rows[count:]
        piece.owners, self.owners = self.owners[:count], self.owners[count:]
        return piece

    def call(self, ahead: float, queue: str, worker: str) -> Call:
        """Make the call that writes them, and lets go of the chunks that are over then.

        Args:
            ahead: How far Redis' clock is ahead of the loop's, s.
            queue: The chunks' queue.
            worker: Who holds them.
        """
        leaving = {owner: chunk for owner, count in self._shares() if (chunk := owner.over_with(count))}
        self._leaving = list(leaving)
        over = Over(queue, worker, list(leaving.values())) if leaving else None
        if len(self.rows[0]) == _COLUMNS:
            return record_successes(self.batch_id, self.common, cast("list[Success]", self.rows), ahead, over)
        indexes, statuses, rows = zip(*self.rows, strict=True)
        return record_rows(self.batch_id, self.common, indexes, statuses, rows, over=over)

    def tell_owners(self, *, is_written: bool) -> None:
        """Let all owners know that they need not wait any longer.

        Args:
            is_written: Whether the call has run; else the results were given up.
        """
        if is_written:
            for owner in self._leaving:
                owner.note_release()
        for owner, count in self._shares():
            owner.count_recorded(count)

    def _shares(self) -> Iterable[tuple[Owner, int]]:
        first, count = self.owners[0], len(self.owners)
        # Most groups are of one chunk, and counting takes 5 us for a single result.
        return [(first, count)] if self.owners.count(first) == count else Counter(self.owners).items()


class Recorder:
    """Write results to Redis in groups.

    Args:
        scripts: The scripts of the Redis to write to.
        clock: Redis' clock.
        queue: The queue whose chunks the results come from.
        worker_id: Who holds these chunks.
        limit: Results held at most; beyond it `room` waits.
        is_busy: Whether more results are to be expected: then one waits for company, 4 ms at most since the last write.
        limit_bytes: Bytes of results held at most; beyond it `room` waits.
        rows_a_call: Results that one script call may carry.

    Attributes:
        is_full: Whether no more results should be taken on.
        room_left: How many more may be.
        on_written: Called with each few groups that have been written.
    """

    def __init__(
        self,
        scripts: Scripts,
        clock: RedisClock,
        queue: str,
        worker_id: str,
        limit: int = 10_000,
        is_busy: Callable[[], bool] = lambda: False,
        limit_bytes: int = 64 << 20,
        rows_a_call: int = ROWS_A_CALL,
    ) -> None:
        self._scripts = scripts
        self._clock = clock
        self._queue = queue
        self._worker_id = worker_id
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._rows_a_call = rows_a_call
        self._is_busy = is_busy
        self._last_write = 0.0
        self._held = 0
        self._held_bytes = 0
        self.is_full = False
        self.room_left = limit
        self._groups: dict[tuple[str, bytes, int], Group] = {}
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.on_written: Callable[[Sequence[Group]], None] | None = None

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._write_for_ever(), name="straggler-recorder")

    async def close(self, farewell: float = _FAREWELL) -> None:
        """Write what is held, then stop.

        Args:
            farewell: How long Redis may take, s, over each piece; what it has not taken then is given up.
        """
        try:
            while self._held:
                self._written.clear()
                async with asyncio.timeout(farewell):
                    await self._written.wait()
        except TimeoutError:
            logger.warning(
                "%d results could not be recorded: their jobs run again", self._held,
                extra={"event": "recorder.gave_up", "count": self._held},
            )  # fmt: skip
            self._groups.clear()
            self._held = self._held_bytes = 0
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def put(self, batch_id: str, common: bytes, rows: Sequence[Row], owner: Owner) -> None:
        """Take results; they are written soon.

        Args:
            batch_id: Their batch.
            common: What they share with others, as JSON; the same bytes for all that do.
            rows: What is each one's own.
            owner: Who is told once they are written.
        """
        for width, some in groupby(rows, len):
            group = self._groups.get((batch_id, common, width))
            if group is None:
                group = self._groups[batch_id, common, width] = Group(batch_id, common)
            group.rows += some
            group.owners += [owner] * (len(group.rows) - len(group.owners))
        self._held += len(rows)
        self._held_bytes += sum([len(row[2]) for row in rows])
        self._look()
        self._wanted.set()

    @property
    def held(self) -> int:
        """Results that are held."""
        return self._held

    def _look(self) -> None:
        self.room_left = self._limit - self._held
        self.is_full = self.room_left <= 0 or self._held_bytes >= self._limit_bytes

    async def room(self) -> None:
        """Wait until fewer results are held than the limits."""
        while self.is_full:
            self._written.clear()
            await self._written.wait()

    async def _write_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            if self._is_busy():
                await asyncio.sleep(self._last_write + _LINGER - loop.time())
            self._last_write = loop.time()
            pieces = self._gather()
            if not pieces:
                self._wanted.clear()
                continue
            calls = [piece.call(self._clock.at(0.0), self._queue, self._worker_id) for piece in pieces]
            for piece, is_written in zip(pieces, await self._write(calls), strict=True):
                self._held -= len(piece.rows)
                self._held_bytes -= piece.size
                piece.tell_owners(is_written=is_written)
            self._look()
            if self.on_written is not None:
                self.on_written(pieces)
            self._written.set()

    def _gather(self) -> list[Group]:
        pieces: list[Group] = []
        for name, group in list(self._groups.items()):
            if len(pieces) == _CALLS_A_TRIP:
                break
            pieces.append(group.cut(self._rows_a_call))
            if not group.rows:
                del self._groups[name]
        return pieces

    async def _write(self, calls: list[Call]) -> list[bool]:
        """Make calls until they have run; tells of each whether it has, as what is spoilt is given up."""
        while True:
            try:
                await self._scripts.run_all(calls)
            except RedisError as error:
                if _SPOILT.search(str(error)):
                    return await self._write_one_by_one(calls, error)
                logger.error(  # noqa: TRY400  # Redis has said what is wrong
                    "results cannot be recorded (%s): they are held and tried again", error,
                    extra={"event": "recorder.waiting"},
                )  # fmt: skip
                await asyncio.sleep(_UNTIL_MENDED)
            else:
                return [True] * len(calls)

    async def _write_one_by_one(self, calls: list[Call], error: Exception) -> list[bool]:
        # Trying again would never help, and hold up all other batches' results: only what is spoilt is given up.
        if len(calls) == 1:
            logger.error(
                "results cannot be recorded and are dropped: one of %s is not ours (%s)", ", ".join(calls[0][1]), error,
                extra={"event": "recorder.dropped"},
            )  # fmt: skip
            return [False]
        return [is_written for call in calls for is_written in await self._write([call])]
