"""Hearing of decisions: connections that fall silent, what cannot be read, many chunks at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ResponseError

from protocol.connection import Payload
from protocol.control import Orders, read_hint, read_orders
from tests.conftest import until
from workers.control import Control


class Channel:
    """A subscription; it answers pings until it falls silent."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.is_closed = False

    async def subscribe(self, name: str) -> None:
        self._said.put_nowait({"type": "subscribe", "data": 1})

    async def ping(self) -> None:
        if self._answers:
            self._said.put_nowait({"type": "pong", "data": b""})

    @property
    def is_heard(self) -> bool:
        return self._said.empty()

    def publish(self, data: bytes) -> None:
        self._said.put_nowait({"type": "message", "data": data})

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                return await self._said.get()
        except TimeoutError:
            return None


class SomeRedis:
    """Gives one channel after the other."""

    def __init__(self, *channels: Channel) -> None:
        self.channels = list(channels)
        self.given: list[Channel] = []

    @asynccontextmanager
    async def pubsub(self) -> AsyncIterator[Channel]:
        channel = self.channels.pop(0)
        self.given.append(channel)
        yield channel
        channel.is_closed = True


class SomeScripts:
    def __init__(self, redis: SomeRedis) -> None:
        self.redis: Any = redis
        self.asked: list[int] = []
        self.error: Exception | None = None

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> list[Any]:
        chunks = args[1::5]
        self.asked.append(len(chunks))
        if self.error is not None:
            raise self.error
        return [[chunk, None] for chunk in chunks]


class SomeChunk:
    orders: Orders | None = None

    def __init__(self, jobs: int) -> None:
        self.payload = Payload("b", 0, jobs, None, 1.0)

    def obey(self, orders: Orders) -> None:
        self.orders = orders

    def hand_back(self) -> None:
        raise AssertionError


@asynccontextmanager
async def listening(*channels: Channel, interval: float, jobs: Sequence[int] = (1,)) -> AsyncIterator[SomeScripts]:
    scripts = SomeScripts(SomeRedis(*channels))
    control = Control(scripts, {f"b:{n}": SomeChunk(count) for n, count in enumerate(jobs)}, interval)  # type: ignore[arg-type]  # what it uses of them
    control.start()
    yield scripts
    await control.close()


async def test_a_connection_that_says_nothing_any_more_is_given_up() -> None:
    silent, other = Channel(answers=False), Channel(answers=True)
    async with listening(silent, other, interval=0.05) as scripts:
        await until(lambda: scripts.redis.given == [silent, other])
        assert silent.is_closed
        await asyncio.sleep(0.3)
        assert not other.is_closed, "it answers"


async def test_a_hint_is_looked_after_at_once() -> None:
    channel = Channel(answers=True)
    async with listening(channel, interval=100) as scripts:
        await until(lambda: scripts.asked and channel.is_heard)
        before = len(scripts.asked)
        channel.publish(b'{"batch":"other"}')
        await until(lambda: channel.is_heard)
        assert len(scripts.asked) == before, "nothing of that one is here"
        channel.publish(b'{"batch":"b"}')
        await until(lambda: len(scripts.asked) == before + 1)


async def test_many_chunks_are_asked_for_in_portions() -> None:
    async with listening(Channel(answers=True), interval=100, jobs=[256] * 9) as scripts:
        await until(lambda: sum(scripts.asked) >= 9)
        assert scripts.asked[:3] == [3, 3, 3]


async def test_what_cannot_be_read_is_said_and_read_later(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Channel(answers=True), interval=0.05) as scripts:
        scripts.error = ResponseError("WRONGTYPE Operation against a key")
        await until(lambda: "decisions cannot be read: WRONGTYPE" in caplog.text)
        scripts.error = None
        asked = len(scripts.asked)
        await until(lambda: len(scripts.asked) > asked + 1)


async def test_one_that_never_started_is_closed() -> None:
    await Control(SomeScripts(SomeRedis()), {}, 1.0).close()  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b'{"other":1}', b"\xff"])
def test_what_is_no_hint_is_none(data: bytes) -> None:
    assert read_hint(data) is None


def test_orders_say_what_is_not_to_run_and_not_to_start() -> None:
    orders = read_orders([b"3", b"5.5", b"stopped", None, 4, b"single"])
    assert orders is not None
    assert (orders.version, orders.deadline) == (b"3", 5.5)
    assert [orders.why_not_to_start(index) for index in (3, 4)] == ["stopped", "single"]
    assert [orders.why_not_to_run(index) for index in (3, 4)] == [None, "single"]
    whole = read_orders([b"4", b"soon", b"", b""])
    assert whole is not None
    assert (whole.deadline, whole.why_not_to_run(1), whole.why_not_to_start(1)) == (None, "", "")
    assert read_orders(None) is None
