"""The batches of a Redis by the page, searched by name, id and metadata.

A search reads the headers of batches it has not seen, 200 a trip, until its page is full; what it searches does not
change while a batch lives, so that the next one reads only what is new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import NamedTuple

from pydantic_core import to_json

from producer.overview.listing import newest, read_statuses
from producer.producer import Producer
from protocol import keys
from protocol.batches import BatchStatus

PAGE = 25
_SLICE = 200
_LONGEST_TEXT = 1000


class Listing(NamedTuple):
    """One page of batches, and whether there is another one."""

    batches: list[BatchStatus]
    has_more: bool


class Catalogue:
    """List and search.

    Args:
        producer: Whose Redis.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._texts: OrderedDict[str, str] = OrderedDict()

    async def page(self, query: str, number: int) -> Listing:
        """Return a page, the first is 0, of the batches that hold every word of the query.

        Raises:
            ProtocolError: If the list of batches is not ours.
        """
        redis, words = self._producer.redis, query.casefold().split()
        start = number * PAGE
        if not words:
            names = await newest(redis, start, PAGE + 1)
        else:
            names = []
            async for name in self._matching(words):
                names.append(name)
                if len(names) > start + PAGE:
                    break
            names = names[start:]
        return Listing(await read_statuses(redis, names[:PAGE]), len(names) > PAGE)

    async def _matching(self, words: list[str]) -> AsyncIterator[str]:
        for start in range(0, keys.BATCHES_KEPT, _SLICE):
            names = await newest(self._producer.redis, start, _SLICE)
            await self._learn(names)
            for name in names:
                if all(word in self._texts.get(name, "") for word in words):
                    yield name
            if len(names) < _SLICE:
                return

    async def _learn(self, names: list[str]) -> None:
        unknown = [name for name in names if name not in self._texts]
        for status in await read_statuses(self._producer.redis, unknown):
            metadata = to_json(status.metadata, fallback=str).decode() if status.metadata else ""
            text = f"{status.batch_id} {status.name or ''} {status.queue} {metadata}"
            self._texts[status.batch_id] = text[:_LONGEST_TEXT].casefold()
        while len(self._texts) > keys.BATCHES_KEPT:
            self._texts.popitem(last=False)
