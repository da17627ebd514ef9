"""From URLs to connections, payloads as arq writes them, and a clock that follows Redis'."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq.jobs import deserialize_job_raw
from pydantic_core import from_json

from protocol import reach as reaching
from protocol.clock import RedisClock
from protocol.connection import Payload, Scripts, connect, decode_payload, encode_payload
from protocol.errors import OptionError, ProtocolError, RedisUnavailableError
from protocol.reach import connected, reach


@asynccontextmanager
async def answering(*replies: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve each command after the connection's greetings with the next of these replies; gives URL and commands."""
    left, asked, connections = list(replies), [], []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while received := await reader.read(65536):
            for command in received.split(b"*")[1:]:
                if b"SETINFO" in command:
                    writer.write(b"+OK\r\n")
                else:
                    asked.append(command)
                    writer.write(left.pop(0))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for writer in connections:
            writer.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "url", ["", "localhost", "localhost:6379", "http://localhost", "redis://localhost:port", "redis//x"]
)
def test_what_is_no_redis_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(OptionError, match="is no Redis URL"):
        connect(url)


@pytest.mark.parametrize("url", ["redis://h", "redis://u:p@h:1/2", "rediss://h", "unix:///tmp/s.sock", "memory://"])
async def test_every_kind_of_url_makes_a_client_that_sends_nothing_yet(url: str) -> None:
    await connect(url).aclose(close_connection_pool=True)


async def test_no_redis_is_said_in_one_line_with_the_cure_and_without_the_password() -> None:
    url = "redis://user:secret@127.0.0.1:1/0"
    with pytest.raises(RedisUnavailableError, match=r"no Redis answers at redis://user:\*\*\*@127.0.0.1:1/0 .*: start"):
        await reach(url)


async def test_a_redis_that_does_not_like_us_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"-WRONGPASS invalid username-password pair\r\n") as (url, asked):
        with pytest.raises(RedisUnavailableError, match=r"refuses us \(.* pair\): say who you are, as .*PASSWORD@"):
            await reach(url)
        assert len(asked) == 1


async def test_a_redis_without_that_database_asks_for_another_url() -> None:
    async with answering(b"-ERR DB index is out of range\r\n") as (url, _):
        with pytest.raises(RedisUnavailableError, match=r"refuses us \(DB index is out of range\): correct its URL"):
            await reach(url)


async def test_a_redis_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "_LONGEST_REACH", 0.05)
    async with answering(b"") as (url, _):
        with pytest.raises(RedisUnavailableError, match=r"\(no reply\)"):
            await reach(url)


async def test_a_redis_that_loads_its_data_is_waited_for_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reaching, "_LONGEST_REACH", 0.05)
    async with answering(*[b"-LOADING Redis is loading the dataset in memory\r\n"] * 8, b"+PONG\r\n") as (url, asked):
        await reach(url)
        assert len(asked) == 9
    assert [record.message for record in caplog.records] == [
        "Redis is there, but not ready (Redis is loading the dataset in memory)"
    ]


async def test_memory_urls_of_one_name_are_one_redis() -> None:
    async with connected("memory://same") as one, connected("memory://same") as two, connected("memory://other") as far:
        await one.set("key", "value", px=1000)
        assert await two.get("key") == b"value"
        assert await far.get("key") is None


def test_a_payload_is_arqs_as_json() -> None:
    payload = encode_payload("batch", 256, 100, 1700000000.25)
    assert json.loads(payload)["f"] == "straggler_chunk"
    function, args, kwargs, _, enqueued_ms = deserialize_job_raw(payload, deserializer=from_json)
    assert (function, tuple(args), kwargs, enqueued_ms) == ("straggler_chunk", ("batch", 256, 100), {}, 1700000000250)
    assert decode_payload(payload, "key") == Payload("batch", 256, 100, None, 1700000000.25)


def test_the_payload_of_a_job_that_runs_again_names_it() -> None:
    payload = encode_payload("batch", 256, 100, 1700000000.25, 300)
    assert decode_payload(payload, "key") == Payload("batch", 256, 100, 300, 1700000000.25)
    assert (decode_payload(payload, "key").jobs, Payload("batch", 256, 100, None, 0.0).jobs) == (1, 100)


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04K\x01.", b"{}", b"[]", b"3", b'{"t":null,"f":"other","a":["b",0,1],"k":{},"et":1}',
             b'{"t":null,"f":"straggler_chunk","a":["b",0],"k":{},"et":1}',
             b'{"t":null,"f":"straggler_chunk","a":["b","x",1],"k":{},"et":1}',
             b'{"t":null,"f":"straggler_chunk","a":["b",0,1],"k":{},"et":null}']
)  # fmt: skip
def test_bytes_that_are_no_payload_are_refused_naming_the_key(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="'the key': "):
        decode_payload(data, "the key")


async def test_scripts_run_in_order_in_one_trip_though_redis_knows_none_of_them(redis_url: str) -> None:
    async with connected(redis_url) as redis:
        await redis.script_flush()
        scripts = Scripts(redis)
        calls = [("renew", ("queue",), ("worker", 1000, f"chunk-{number}")) for number in range(3)]
        assert [lost for _, _, lost in await scripts.run_all(calls)] == [b"chunk-0", b"chunk-1", b"chunk-2"]
        assert (await scripts.run(*calls[1]))[2:] == [b"chunk-1"]


async def test_scripts_are_taught_again_though_redis_loses_them_in_between(
    redis_url: str, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(redis_url) as client:
        scripts = Scripts(client)
        load, flushes = client.script_load, list[Any]()

        async def load_and_lose(source: str) -> None:
            await load(source)
            if len(flushes) < 3:
                flushes.append(redis.script_flush())

        redis.script_flush()
        monkeypatch.setattr(client, "script_load", load_and_lose)
        assert (await scripts.run("renew", ("queue",), ("worker", 1000, "chunk")))[2:] == [b"chunk"]
        assert len(flushes) == 3


def test_the_clock_is_as_good_as_its_best_reading() -> None:
    clock = RedisClock()
    now = time.monotonic()
    clock.sync(1000, 0, now - 0.2, now)  # half a trip is the error: 0.1 s
    assert clock.at(now - 0.1) == pytest.approx(1000)
    clock.sync(2000, 500_000, now, now + 0.002)
    assert clock.at(now + 0.001) == pytest.approx(2000.5)
    clock.sync(9000, 0, now + 0.002, now + 5)
    assert clock.at(now + 0.001) == pytest.approx(2000.5), "a slow trip says less than what is known"
    clock.sync(3000, 0, now + 999, now + 999.05)
    assert clock.at(now + 999.025) == pytest.approx(3000), "an old reading counts for less"
    assert clock.at(time.monotonic()) <= clock.now() <= clock.at(time.monotonic())
