"""`memory://`: one server for each URL, which goes when it is forgotten, and scripts that are compiled once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ResponseError

from protocol import lua, memory
from protocol.connection import Scripts
from protocol.reach import connected
from protocol.settings import Settings
from straggler import embedded
from tests.jobs import square


async def test_a_script_is_compiled_once_and_sees_the_keys_and_arguments_of_each_call() -> None:
    async with connected("memory://compiled") as redis:
        scripts = Scripts(redis)
        assert (await scripts.run("renew", ("queue",), ("worker", 1000, "one")))[2:] == [b"one"]
        assert (await scripts.run("renew", ("queue",), ("worker", 1000, "two", "three")))[2:] == [b"two", b"three"]
        assert await redis.script_exists(lua.sha("renew", memory.call), lua.sha("renew")) == [True, False]
    memory.forget("memory://compiled")


async def test_an_error_in_a_script_says_what_is_wrong() -> None:
    async with connected("memory://errors") as redis:
        await redis.set("queue", "not a queue")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await Scripts(redis).run("retry", ("queue", "wake"), ("worker", 1000))
    memory.forget("memory://errors")


async def test_a_forgotten_server_is_gone_and_its_url_names_an_empty_one() -> None:
    url = f"memory://{uuid4().hex}"
    async with connected(url) as redis:
        await redis.set("key", "value")
    async with connected(url) as redis:
        assert await redis.get("key") == b"value"
    memory.forget(url)
    async with connected(url) as redis:
        assert await redis.get("key") is None
    memory.forget(url)
    memory.forget(url)


def test_the_embedded_mode_leaves_no_server_behind() -> None:
    async def run() -> weakref.ref[Any]:
        async with embedded(Settings()) as producer:
            assert await (await producer.submit(square.map(range(3)))).gather() == [0, 1, 4]
            return weakref.ref(memory.server(producer.url))

    server = asyncio.run(run())
    gc.collect()
    assert server() is None
