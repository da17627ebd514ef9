"""Write results to Redis in groups, each job's first result only.

While one group is on its way the next gathers, so a lone result leaves at once and a flood leaves in few large pieces.
While Redis cannot be reached, results are held here and tried again; past `limit` nothing new is taken on (`room`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import Call, Scripts
from workers.rows import Row

logger = logging.getLogger(__name__)

# One script call sets this many bits at most: Redis serves nobody else meanwhile.
_ROWS_A_CALL = 256
_BYTES_A_CALL = 1 << 20
_CALLS_A_TRIP = 16


class Group:
    """Results that share their common fields: one chunk's, in one worker.

    Args:
        batch_id: Their batch.
        common: The shared fields, as JSON.
        on_recorded: Called with the number of this group's results that have just been written.
    """

    def __init__(self, batch_id: str, common: bytes, on_recorded: Callable[[int], None]) -> None:
        self.batch_id = batch_id
        self.common = common
        self.on_recorded = on_recorded
        self.rows: list[Row] = []

    def take(self) -> list[Row]:
        """Take what one script call may carry."""
        size = count = 0
        for count, (_, _, row) in enumerate(self.rows[:_ROWS_A_CALL], start=1):  # noqa: B007  # read below
            size += len(row)
            if size >= _BYTES_A_CALL:
                break
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken


class Recorder:
    """Write results to Redis in groups.

    Args:
        scripts: The scripts of the Redis to write to.
        limit: Results held at most; beyond it `room` waits.
    """

    def __init__(self, scripts: Scripts, limit: int = 10_000) -> None:
        self._scripts = scripts
        self._limit = limit
        self._held = 0
        self._groups: dict[Group, None] = {}
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._write_for_ever(), name="straggler-recorder")

    async def close(self) -> None:
        """Write what is held, then stop."""
        while self._held:
            self._written.clear()
            await self._written.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def put(self, group: Group, row: Row) -> None:
        """Take a result; it is written soon."""
        group.rows.append(row)
        self._groups[group] = None
        self._held += 1
        self._wanted.set()

    async def room(self) -> None:
        """Wait until fewer results are held than the limit."""
        while self._held >= self._limit:
            self._written.clear()
            await self._written.wait()

    async def _write_for_ever(self) -> None:
        while True:
            await self._wanted.wait()
            pieces = self._gather()
            if not pieces:
                self._wanted.clear()
                continue
            await self._write([_call(group, rows) for group, rows in pieces])
            for group, rows in pieces:
                self._held -= len(rows)
                group.on_recorded(len(rows))
            self._written.set()

    def _gather(self) -> list[tuple[Group, list[Row]]]:
        pieces: list[tuple[Group, list[Row]]] = []
        for group in list(self._groups):
            if len(pieces) == _CALLS_A_TRIP:
                break
            pieces.append((group, group.take()))
            if not group.rows:
                del self._groups[group]
        return pieces

    async def _write(self, calls: list[Call]) -> None:
        failures = 0
        while True:
            try:
                await self._scripts.run_all(calls)
            except (RedisError, OSError) as error:
                if failures == 0:
                    logger.warning(
                        "results cannot be recorded (%s): they are held and tried again", error,
                        extra={"event": "recorder.waiting"},
                    )  # fmt: skip
                failures += 1
                await asyncio.sleep(min(1.0, 0.05 * 2 ** min(failures, 10)))
            else:
                if failures:
                    logger.info("results are recorded again", extra={"event": "recorder.resumed"})
                return


def _call(group: Group, rows: list[Row]) -> Call:
    batch_id = group.batch_id
    names = (keys.batch(batch_id), keys.done(batch_id), keys.results(batch_id), keys.chunks(batch_id))
    indexes, statuses, texts = zip(*rows, strict=True)
    # Three long arguments in place of three a job: packing those was a quarter of a worker's time.
    joined = (",".join(map(str, indexes)), ",".join(statuses), b",\n".join(texts))
    return "record", names, (group.common, int(keys.OPEN_BATCH_LIFETIME * 1000), *joined)
