"""What all pages share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from dashboard.access import Access
from dashboard.catalogue import Catalogue
from dashboard.followers import Followers
from dashboard.pace import Pace
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
    pace: Pace
    catalogue: Catalogue
    followers: Followers
    # Queues that batches were seen to wait in.
    queues: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, producer: Producer, access: Access) -> Self:
        """Make a dashboard's state."""
        pace = Pace()
        return cls(producer, access, pace, Catalogue(producer), Followers(producer, pace), {producer.queue})
