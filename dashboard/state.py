"""What all pages share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from dashboard.access import Access
from dashboard.catalogue import Catalogue
from dashboard.followers import Followers
from dashboard.pace import Paces
from producer.producer import Producer


@dataclass(frozen=True, slots=True)
class State:
    """One dashboard.

    Args:
        producer: Whose Redis is shown.
        access: Who may do what.
    """

    producer: Producer
    access: Access
    pace: Paces
    catalogue: Catalogue
    followers: Followers
    # Live streams that are open.
    streams: set[object] = field(default_factory=set)
    _at_work: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    def of(cls, producer: Producer, access: Access) -> Self:
        """Make a dashboard's state."""
        pace = Paces()
        return cls(producer, access, pace, Catalogue(producer), Followers(producer, pace))

    def keep(self, work: asyncio.Task[Any]) -> None:
        """Hold on to what goes on after its request has been answered."""
        self._at_work.add(work)
        work.add_done_callback(self._at_work.discard)

    async def close(self) -> None:
        """End what goes on: what was asked for in Redis may be asked for again, and goes on there."""
        for work in self._at_work:
            work.cancel()
        if self._at_work:
            await asyncio.wait(self._at_work)
        await self.followers.close()
