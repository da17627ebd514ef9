"""Slots: never more in use than there are, first come, first served."""

from __future__ import annotations

import asyncio

from workers.slots import Slots


async def test_a_taken_slot_is_used_until_it_is_given_back() -> None:
    slots = Slots(2)
    await slots.take()
    assert (slots.free, slots.used) == (1, 1)
    slots.give()
    assert (slots.free, slots.used) == (2, 0)


async def test_who_waits_longest_is_served_first() -> None:
    slots = Slots(1)
    await slots.take()
    served: list[int] = []

    async def wait(number: int) -> None:
        await slots.take()
        served.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    for _ in range(3):
        slots.give()
        await asyncio.sleep(0)
    assert served == [0, 1, 2]
    assert slots.free == 0
    await asyncio.gather(*tasks)


async def test_nobody_overtakes_those_who_wait() -> None:
    slots = Slots(1)
    await slots.take()
    first = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give()
    second = asyncio.create_task(slots.take())
    await first
    assert not second.done()
    slots.give()
    await second


async def test_who_stops_waiting_costs_no_slot() -> None:
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    slots.give()
    assert slots.free == 1


async def test_who_is_cancelled_in_the_moment_of_being_served_passes_the_slot_on() -> None:
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert slots.free == 1


async def test_waiting_for_several_free_slots_takes_none() -> None:
    slots = Slots(3)
    for _ in range(3):
        await slots.take()
    waiting = asyncio.create_task(slots.wait_spare(2))
    slots.give()
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.give()
    await waiting
    assert slots.free == 2


async def test_nobody_waits_for_more_slots_than_there_are() -> None:
    await asyncio.wait_for(Slots(2).wait_spare(100), 1)
