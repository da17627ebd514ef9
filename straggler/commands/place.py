"""The Redis and the queue that a command works with, and what people are told of them."""

# ruff: noqa: PLC0415  # a worker's supervisor, which is to start fast, submits and collects nothing

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from protocol.errors import StragglerError
from protocol.settings import Settings, checked_queue
from straggler.commands.process import say

if TYPE_CHECKING:
    from producer.producer import Producer
    from straggler.commands.collection import Collection


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works.

    Args:
        settings: As the environment says.
        redis: `--redis`, if given.
        queue: `--queue`, if given.

    Raises:
        OptionError: If there can be no such queue.
    """

    settings: Settings
    redis: str | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        if self.queue is not None:
            checked_queue(self.queue)

    @property
    def url(self) -> str:
        """The Redis."""
        return self.redis or self.settings.redis_url

    def command(self, *words: str) -> str:
        """Write a straggler command that works with the same Redis."""
        redis = ("--redis", self.redis) if self.redis else ()
        return shlex.join(("straggler", *words, *redis))

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[Producer]:
        """Connect.

        Raises:
            RedisUnavailableError: If Redis does not answer.
        """
        from producer.producer import Producer

        async with Producer(self.url, queue=self.queue, settings=self.settings) as producer:
            yield producer

    @asynccontextmanager
    async def collectable_later(self, collection: Collection, out: str | None) -> AsyncIterator[None]:
        """Say how to collect the rest of a batch later, if its collector has to stop before its end."""
        from producer.export import STDOUT, ExportError
        from straggler.commands.interrupts import Interrupts

        batch = collection.batch
        with Interrupts() as interrupts:
            try:
                yield
            except (RedisError, ExportError, TimeoutError, asyncio.CancelledError) as error:
                is_marked = out is not None and out != STDOUT  # the file knows where it is
                at = () if is_marked or collection.cursor == "0-0" else ("--cursor", collection.cursor)
                to = ("--out", out) if out else ()
                say(
                    f"batch {batch.id} goes on; collect the rest with:\n  {self.command('collect', batch.id, *at, *to)}"
                )
                if isinstance(error, asyncio.CancelledError):
                    await interrupts.cancel_if_told_again(batch)
                if isinstance(error, TimeoutError):
                    raise StragglerError(f"the time is up: {collection.tally.total:,} results were collected") from None
                raise
