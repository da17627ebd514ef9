"""Hear what is decided about batches while their jobs are here, and let the chunks obey.

A hint says which batch to look at. A worker looks by itself, too, when it has connected anew and every few seconds, so
a lost hint costs seconds. It asks for what is new to each chunk only: for the others a look is a number to compare.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from protocol import keys
from protocol.connection import Payload, Scripts
from protocol.control import Orders, read_hint, read_orders
from protocol.patience import is_passing, pauses

logger = logging.getLogger(__name__)

# One call of the script reads what was decided for this many jobs at most.
_JOBS_A_CALL = 1000
# A claim's reply may come after the hint of what was decided in between: hints are remembered this long, s.
_MEMORY = 10.0


class Obeys(Protocol):
    """A chunk, as decisions about its batch reach it."""

    payload: Payload
    orders: Orders | None
    """What it knows of."""

    def obey(self, orders: Orders) -> None:
        """Cancel what is to be cancelled."""

    def hand_back(self) -> None:
        """Stop all jobs, which end in no result here."""


class Control:
    """Listen for decisions.

    Args:
        scripts: The scripts of the Redis to listen to.
        chunks: The chunks that are here, by id.
        interval: How often to look without a hint, s.
    """

    def __init__(self, scripts: Scripts, chunks: Mapping[str, Obeys], interval: float) -> None:
        self._scripts = scripts
        self._chunks = chunks
        self._interval = interval
        self._hinted: dict[str, float] = {}
        self._is_refused = False
        self._late = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Start to listen."""
        self._tasks = (
            asyncio.create_task(self._listen_for_ever(), name="straggler-control"),
            asyncio.create_task(self._look_for_ever(), name="straggler-control-look"),
        )

    async def close(self) -> None:
        """Stop to listen."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def took(self, batch_id: str) -> None:
        """Take note of a chunk that has come: something may have been decided while it was on its way."""
        if batch_id in self._hinted:
            self._late.set()

    async def look(self) -> None:
        """Read what is new to the chunks that are here, and let them obey."""
        for some in _portions(self._chunks.items()):
            args: list[Any] = [int(keys.OPEN_BATCH_LIFETIME * 1000)]
            for chunk_id, chunk in some:
                payload = chunk.payload
                start = payload.start
                known = b"" if chunk.orders is None else chunk.orders.version
                args += [chunk_id, payload.batch_id, start, start + payload.jobs, known]
            for (_, chunk), (_, told) in zip(some, await self._scripts.run("control", (), args), strict=True):
                if told == b"gone":  # deleted, or lost with Redis' data: nobody can take a result
                    chunk.hand_back()
                    continue
                orders = read_orders(told)
                if orders is not None:
                    chunk.obey(orders)

    async def _look_for_ever(self) -> None:
        while True:
            self._late.clear()
            now = time.monotonic()
            self._hinted = {batch: at for batch, at in self._hinted.items() if now - at < _MEMORY}
            try:
                await self.look()
            except RedisError as error:  # what only people can mend
                logger.warning("decisions cannot be read: %s", error, extra={"event": "control.look_failed"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._late.wait()

    async def _listen_for_ever(self) -> None:
        waits = pauses()
        while True:
            try:
                async with self._scripts.redis.pubsub() as channel:
                    await channel.subscribe(keys.CONTROL)
                    # Only the answer tells whether this user may.
                    await channel.get_message(timeout=self._interval)
                    self._late.set()  # what was said meanwhile was not heard
                    waits = pauses()
                    await self._listen(channel)
            except (RedisError, OSError) as error:
                self._tell_if_refused(error)
            await asyncio.sleep(next(waits))

    def _tell_if_refused(self, error: Exception) -> None:
        if not self._is_refused and not is_passing(error):
            self._is_refused = True
            logger.warning(
                "hints of decisions cannot be heard, which delays them by up to %.0f s: %s", self._interval, error,
                extra={"event": "control.refused"},
            )  # fmt: skip

    async def _listen(self, channel: PubSub) -> None:
        """Listen until the connection says nothing any more, not even to a ping."""
        is_asked = False
        while True:
            message = await channel.get_message(timeout=self._interval)
            if message is not None:
                is_asked = False
                self._hear(message)
            elif is_asked:
                return
            else:
                is_asked = True
                await channel.ping()

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] != "message":
            return
        batch_id = read_hint(message["data"])
        if batch_id is not None:
            self._hinted[batch_id] = time.monotonic()
            if any(chunk.payload.batch_id == batch_id for chunk in self._chunks.values()):
                self._late.set()


def _portions(chunks: Iterable[tuple[str, Obeys]]) -> Iterator[list[tuple[str, Obeys]]]:
    """Cut what is here into what one call of the script may be asked."""
    portion: list[tuple[str, Obeys]] = []
    jobs = 0
    for chunk_id, chunk in list(chunks):
        if portion and jobs + chunk.payload.jobs > _JOBS_A_CALL:
            yield portion
            portion, jobs = [], 0
        portion.append((chunk_id, chunk))
        jobs += chunk.payload.jobs
    if portion:
        yield portion
