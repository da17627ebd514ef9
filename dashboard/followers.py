"""The batches that somebody looks at, or has looked at lately; together they take a bounded amount of memory."""

from __future__ import annotations

from collections import OrderedDict

from dashboard.follower import Follower
from dashboard.pace import Paces
from producer.producer import Producer
from protocol.errors import BatchNotFoundError

# What is known of this many batches is kept, and takes no more than so many bytes in all: some 20 a result and its key.
_MOST_BATCHES = 32
_MOST_BYTES = 128 << 20


class Followers:
    """Find a batch's follower, or make it.

    Args:
        producer: Whose Redis.
        pace: Remembers how fast batches go.
    """

    def __init__(self, producer: Producer, pace: Paces) -> None:
        self._producer = producer
        self._pace = pace
        self._followers: OrderedDict[str, Follower] = OrderedDict()

    async def get(self, batch_id: str) -> Follower:
        """Return what is known of a batch, fresh.

        Raises:
            BatchNotFoundError: If there is none of that id.
            ProtocolError: If one of its keys is not ours.
        """
        follower = self._followers.get(batch_id)
        if follower is None:
            follower = self._followers[batch_id] = Follower(self._producer, batch_id, self._pace)
        self._followers.move_to_end(batch_id)
        try:
            await follower.refresh()
        except BaseException as error:
            if isinstance(error, BatchNotFoundError) or not follower.is_known:
                self._followers.pop(batch_id, None)
                await follower.close()
            raise
        await self._make_room()
        return follower

    def expire(self, batch_id: str) -> None:
        """Let the next look at a batch be a fresh one: something is done to it."""
        if batch_id in self._followers:
            self._followers[batch_id].expire()

    async def close(self) -> None:
        """Follow nothing any longer."""
        for follower in self._followers.values():
            await follower.close()
        self._followers.clear()

    async def _make_room(self) -> None:
        """Forget whom nobody has looked at for the longest time."""
        while len(self._followers) > 1 and (len(self._followers) > _MOST_BATCHES or self._bytes() > _MOST_BYTES):
            _, oldest = self._followers.popitem(last=False)
            await oldest.close()

    def _bytes(self) -> int:
        return sum(follower.digest.index.size for follower in self._followers.values() if follower.is_known)
