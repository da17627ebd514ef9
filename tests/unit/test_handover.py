"""A handover: items from a thread to a loop, in order, never far ahead, and with the end that the source has met."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest

from straggler.handover import Handover
from tests.conftest import until


def start(handover: Handover[Any], items: Any) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def fill() -> None:
        try:
            handover.fill(items)
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            raised.append(error)

    thread = threading.Thread(target=fill)
    thread.start()
    return thread, raised


async def test_items_come_in_order_and_never_far_ahead() -> None:
    handover: Handover[int] = Handover(asyncio.get_running_loop(), 10)
    taken = count()
    thread, _ = start(handover, (next(taken) for _ in range(1000)))
    await asyncio.to_thread(thread.join, 0.05)
    assert next(taken) <= 12
    found = [item async for item in handover.stream()]
    thread.join()
    assert found == sorted(found)
    assert len(found) == 1000


async def test_what_the_source_raises_comes_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    handover: Handover[int] = Handover(asyncio.get_running_loop(), 10)
    thread, raised = start(handover, items())
    stream = handover.stream()
    assert await anext(stream) == 1
    with pytest.raises(LookupError, match="no more"):
        await anext(stream)
    thread.join()
    assert raised == []


async def test_source_that_is_interrupted_has_not_ended() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    handover: Handover[int] = Handover(asyncio.get_running_loop(), 10)
    thread, raised = start(handover, items())
    with pytest.raises(asyncio.CancelledError):
        _ = [item async for item in handover.stream()]
    thread.join()
    assert [type(error) for error in raised] == [KeyboardInterrupt]


async def test_who_takes_no_more_lets_the_source_go() -> None:
    handover: Handover[int] = Handover(asyncio.get_running_loop(), 10)
    thread, _ = start(handover, count())
    async with aclosing(handover.stream()) as stream:
        assert await anext(stream) == 0
    await until(lambda: not thread.is_alive())
