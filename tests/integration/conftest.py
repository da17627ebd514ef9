"""What several tests of scripts work with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from protocol.connection import connect
from tests.hand import Hand


@pytest.fixture
async def hands(redis_url: str) -> AsyncIterator[tuple[Hand, Hand]]:
    """Give two workers' hands on the queue."""
    redis = connect(redis_url)
    yield Hand(redis, "a"), Hand(redis, "b")
    await redis.aclose(close_connection_pool=True)
