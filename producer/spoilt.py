"""Keys in Redis where something else stands than what we put there: found, and named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ResponseError

from protocol import keys
from protocol.connection import ArqRedis
from protocol.errors import ProtocolError


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Name the key if a command that reads it meets another type of value.

    Raises:
        ProtocolError: If it does.
    """
    try:
        yield
    except ResponseError as error:
        raise_named(error, key)
        raise


def raise_named(reply: Any, key: str) -> None:
    """Look at one reply of a pipeline.

    Raises:
        ProtocolError: If it says that another type of value stands at the key.
        redis.exceptions.RedisError: If it is any other error.
    """
    if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
        raise ProtocolError(key, "another type of value stands there") from None
    if isinstance(reply, Exception):
        raise reply


async def find_spoilt(redis: ArqRedis, error: ResponseError, types: Mapping[str, str]) -> ProtocolError | None:
    """Find the key that a script of ours stumbled on; None if it failed for another reason.

    Args:
        redis: Where it ran.
        error: What it failed with.
        types: The script's keys, the header first, and the type that each is to have.
    """
    if "not an integer" in str(error):  # a field of the header that we count in
        return ProtocolError(next(iter(types)), "a count that is no number")
    if "WRONGTYPE" not in str(error):
        return None
    for key, expected in types.items():
        found = (await redis.type(key)).decode()
        if found not in (expected, "none"):
            return ProtocolError(key, f"a {found} stands there, not a {expected}")
    return None


def types_of(batch_id: str) -> dict[str, str]:
    """Name a batch's keys and the type that each has, the header first."""
    return {
        keys.batch(batch_id): "hash",
        keys.done(batch_id): "string",
        keys.results(batch_id): "stream",
        keys.chunks(batch_id): "hash",
    }
