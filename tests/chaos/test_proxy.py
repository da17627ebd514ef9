"""The proxy cuts its clients off in three ways, and heals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import Cut, Proxy
from tests.chaos.store import free_ports
from tests.conftest import PATIENCE

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.transport.abort()


class Wire:
    """A proxy before a server that says what it hears."""

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        self.port = port
        self._links: list[Link] = []

    async def connect(self) -> Link:
        link = await asyncio.open_connection("127.0.0.1", self.port)
        self._links.append(link)
        return link

    def close(self) -> None:
        for _, writer in self._links:
            writer.transport.abort()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    port, upstream = free_ports(random.Random(), 2)
    server = await asyncio.start_server(echo, "127.0.0.1", upstream)
    proxy = Proxy(port, upstream)
    await proxy.start()
    made = Wire(proxy, port)
    yield made
    made.close()
    await proxy.close()
    server.close()
    await server.wait_closed()


async def says(link: Link, text: bytes) -> bytes:
    link[1].write(text)
    return await link[0].readexactly(len(text))


async def is_silent(link: Link) -> bool:
    try:
        async with asyncio.timeout(0.1):
            return await link[0].read(100) == b"never"
    except TimeoutError:
        return True


async def is_reset(link: Link) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            return await link[0].read(100) == b""
    except ConnectionError:
        return True


async def test_bytes_flow_both_ways(wire: Wire) -> None:
    link = await wire.connect()
    assert await says(link, b"one") == b"one"


@pytest.mark.parametrize("mode", ["hold", "drop"])
async def test_who_is_cut_off_hears_nothing(wire: Wire, mode: Cut) -> None:
    link = await wire.connect()
    assert await says(link, b"one") == b"one"
    wire.proxy.cut(mode)
    link[1].write(b"two")
    assert await is_silent(link)


async def test_what_was_held_travels_once_the_cut_is_over(wire: Wire) -> None:
    link = await wire.connect()
    wire.proxy.cut("hold")
    link[1].write(b"two")
    assert await is_silent(link)
    wire.proxy.heal()
    assert await link[0].readexactly(3) == b"two"


async def test_a_connection_that_has_lost_bytes_is_reset_once_the_cut_is_over(wire: Wire) -> None:
    idle, link = await wire.connect(), await wire.connect()
    assert await says(idle, b"one") + await says(link, b"one") == b"oneone"
    wire.proxy.cut("drop")
    link[1].write(b"two")
    assert await is_silent(link)
    wire.proxy.heal()
    assert await is_reset(link)
    assert await says(idle, b"two") == b"two"


async def test_reset_ends_connections_old_and_new(wire: Wire) -> None:
    link = await wire.connect()
    assert await says(link, b"one") == b"one"
    wire.proxy.cut("reset")
    assert await is_reset(link)
    assert await is_reset(await wire.connect())
    wire.proxy.heal()
    assert await says(await wire.connect(), b"two") == b"two"
