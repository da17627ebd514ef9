"""Our connections do what redis-py's do, with less work: the same bytes, and none that is not fit for a command."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError, DataError, ResponseError  # noqa: A004

from protocol.connection import ArqRedis, connect
from protocol.pool import QuickPool, exchange
from tests.conftest import until

pytestmark = pytest.mark.redis


def idle(client: ArqRedis) -> list[Any]:
    return client.connection_pool._available_connections


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "key", "ü"),
        ("SET", b"key", b"\x00\r\n"),
        ("ZADD", "key", 1764000000.123456, "a", -0.0, "b", 1e-5, "c", 10**20, "d"),
        ("SCRIPT LOAD", "return 1"),
        ("EVALSHA", "a" * 40, 1, "key", *range(300), b"x" * 100_000),
    ],
)
def test_commands_are_packed_as_redis_py_packs_them(words: tuple[Any, ...]) -> None:
    pack: Any = QuickPool().make_connection().pack_command
    assert b"".join(pack(*words)) == b"".join(Connection().pack_command(*words))


async def test_what_redis_does_not_take_is_refused(redis_url: str) -> None:
    client = connect(redis_url)
    with pytest.raises(DataError):
        await client.set("key", None)  # type: ignore[arg-type]  # on purpose
    assert await client.ping()
    await client.aclose(close_connection_pool=True)


async def test_connection_that_the_server_has_closed_is_made_anew(redis_url: str, redis: Any) -> None:
    client = connect(redis_url, patient=False)
    number = await client.client_id()
    [connection] = idle(client)
    redis.client_kill_filter(_id=number)
    await until(connection._reader.at_eof)
    assert await client.client_id() != number
    await client.aclose(close_connection_pool=True)


async def test_connection_with_something_left_to_read_is_made_anew(redis_url: str) -> None:
    client = connect(redis_url, patient=False)
    number = await client.client_id()
    [connection] = idle(client)
    connection._reader.feed_data(b":%d\r\n" % number)
    assert await client.client_id() != number
    await client.aclose(close_connection_pool=True)


async def test_connection_is_used_again(redis_url: str) -> None:
    client = connect(redis_url, patient=False)
    assert len({await client.client_id() for _ in range(3)}) == 1
    await client.aclose(close_connection_pool=True)


async def test_exchange_returns_each_reply_in_its_place(redis_url: str) -> None:
    client = connect(redis_url)
    number = await client.client_id()
    replies = await exchange(
        client.connection_pool, [("SET", "a", "x", "PX", 9000), ("INCR", "a"), ("GET", "a"), ("CLIENT", "ID")]
    )
    assert replies[0] == b"OK"
    assert isinstance(replies[1], ResponseError)
    assert replies[2:] == [b"x", number]
    assert await client.client_id() == number
    await client.aclose(close_connection_pool=True)


async def test_reply_of_a_cancelled_exchange_is_nobodys(redis_url: str, redis: Any) -> None:
    client = connect(redis_url)
    waiting = asyncio.create_task(exchange(client.connection_pool, [("BLPOP", "list", 5), ("ECHO", "late")]))
    await until(lambda: redis.info("clients")["blocked_clients"])
    waiting.cancel()
    await asyncio.wait({waiting})
    redis.rpush("list", 1)
    redis.delete("list")
    assert await exchange(client.connection_pool, [("ECHO", "new")]) == [b"new"]
    await client.aclose(close_connection_pool=True)


async def test_exchange_is_broken_off_with_its_connection(redis_url: str, redis: Any) -> None:
    client = connect(redis_url)
    number = await client.client_id()
    waiting = asyncio.create_task(exchange(client.connection_pool, [("BLPOP", "list", 5)]))
    await until(lambda: redis.info("clients")["blocked_clients"])
    redis.client_kill_filter(_id=number)
    with pytest.raises(ConnectionError):
        await waiting
    assert await exchange(client.connection_pool, [("ECHO", "new")]) == [b"new"]
    await client.aclose(close_connection_pool=True)


async def test_exchange_uses_no_connection_that_has_ended(redis_url: str, redis: Any) -> None:
    client = connect(redis_url)
    number = await client.client_id()
    [connection] = idle(client)
    redis.client_kill_filter(_id=number)
    await until(connection._reader.at_eof)
    [other] = await exchange(client.connection_pool, [("CLIENT", "ID")])
    assert other != number
    await client.aclose(close_connection_pool=True)
