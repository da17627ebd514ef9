"""A worker's loop: it waits no longer than it was told to, and for all that others wait for."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import signal
import sys
import time
from typing import Any

import pytest

from workers.timing import selector

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop is the platform's own")

# Less than a millisecond, s.
SOON = 0.0002
ROUNDED_UP = 0.001


def exact() -> selectors.BaseSelector:
    return selector.ExactSelector()


def test_a_wait_is_not_rounded_up_to_a_millisecond() -> None:
    with exact() as waiting:
        waits = []
        for _ in range(50):
            began = time.perf_counter()
            assert waiting.select(SOON) == []
            waits.append(time.perf_counter() - began)
    assert min(waits) >= SOON
    assert min(waits) < ROUNDED_UP, "of so many one is exact, however busy the machine"


def test_a_loop_knows_how_long_its_process_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector, "_STANDSTILL", 0.1)
    loop = selector.new_loop()
    assert isinstance(loop, selector.ExactLoop)
    loop.run_until_complete(asyncio.sleep(0.01))
    before = loop.stood_still
    wait = select.select

    def oversleep(*words: Any) -> Any:
        time.sleep(0.2)
        return wait(*words)

    monkeypatch.setattr(select, "select", oversleep)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert loop.stood_still - before >= 0.19
    loop.close()


def test_what_comes_meanwhile_ends_a_wait() -> None:
    reader, writer = os.pipe()
    with exact() as waiting:
        waiting.register(reader, selectors.EVENT_READ)
        for timeout in (None, -1, 0, SOON, 0.05, 60):
            os.write(writer, b"x")
            [(key, events)] = waiting.select(timeout)
            assert (key.fd, events) == (reader, selectors.EVENT_READ)
            os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_a_signal_reaches_its_handler_while_the_loop_waits_for_a_timer() -> None:
    async def main() -> None:
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        # The timer is near enough that the loop waits by `select`.
        timers = [loop.call_later(0.01 * number, lambda: None) for number in range(1000)]
        loop.call_later(0.005, os.kill, os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(9):
            await heard.wait()
        for timer in timers:
            timer.cancel()
        loop.remove_signal_handler(signal.SIGUSR1)

    with asyncio.Runner(loop_factory=selector.new_loop) as runner:
        runner.run(main())


def test_what_a_signal_handler_raises_ends_the_wait() -> None:
    def give_up(_signum: int, _frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with exact() as waiting, pytest.raises(InterruptedError):
            waiting.select(0.09)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_where_no_low_descriptor_is_left_the_loop_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.timing.selector._TOO_HIGH", 0)
    loop = selector.new_loop()
    assert type(loop._selector).__name__ == "EpollSelector"  # type: ignore[attr-defined]  # no other way
    loop.close()
