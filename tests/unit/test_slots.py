"""Slots: never more in use than there are, first come, first served."""

from __future__ import annotations

import asyncio

from tests.conftest import until
from workers.starting.slots import Slots


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


async def test_who_can_use_slots_there_and_then_uses_them_in_turn_and_waits_on() -> None:
    slots = Slots(1)
    await slots.take()
    used: list[str] = []

    def use(name: str) -> bool:
        used.append(name)
        return used.count(name) < 3

    ready = asyncio.create_task(slots.take(lambda: use("ready")))
    await asyncio.sleep(0)
    slow = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give()
    assert used == ["ready"], "in the very moment in which the slot comes"
    slots.give()
    await slow
    slots.give()
    assert (used, slots.free) == (["ready"] * 2, 0)
    assert not ready.done()
    slots.give()
    await asyncio.wait_for(ready, 1)
    assert (used, slots.free) == (["ready"] * 3, 0), "one that it cannot use so it has as everybody has"


async def test_waiting_for_several_free_slots_takes_none() -> None:
    slots = Slots(3)
    for _ in range(3):
        await slots.take()
    waiting = asyncio.create_task(slots.wait_room(2))
    slots.give()
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.give()
    await waiting
    assert slots.free == 2


async def test_nobody_waits_for_more_slots_than_there_are() -> None:
    await Slots(2).wait_room(100)


def test_jobs_that_wait_here_take_room() -> None:
    slots = Slots(10)
    assert slots.try_take()
    slots.waiting = 4
    assert (slots.free, slots.room) == (9, 5)


def test_who_is_alone_takes_jobs_on_ahead_of_its_slots() -> None:
    slots = Slots(10, 500)
    assert slots.room == 510
    slots.waiting += 500
    assert not slots.has_room, "more come once half of the last have started"
    slots.waiting -= 300
    assert slots.has_room


def full(total: int, seconds: float) -> Slots:
    """Make slots that are all taken, by jobs that use to take so long."""
    slots = Slots(total)
    assert all(slots.try_take() for _ in range(total))
    for _ in range(100):
        slots.took(seconds)
    return slots


def test_slots_that_will_soon_be_free_are_room() -> None:
    assert full(100, 2.0).room == 0, "of jobs that last none is claimed that another worker could start now"
    slots = full(100, 0.02)
    assert 40 <= slots.room <= 50, "half of the jobs of 20 ms are over within 10 ms"
    slots.waiting = 50
    assert slots.room <= 0


def test_jobs_are_asked_for_again_once_half_of_those_ahead_have_started() -> None:
    slots = full(100, 0.02)
    slots.waiting = slots.soon_over
    assert not slots.has_room
    slots.waiting -= 2
    assert slots.room
    assert not slots.has_room, "or each short job would cost a claim"
    slots.waiting = slots.soon_over // 2 - 1
    assert slots.has_room
    slots.waiting = 0
    slots.give()
    assert slots.has_room, "a slot stands empty"


async def test_jobs_that_last_longer_than_those_before_are_not_taken_for_short_ones() -> None:
    slots = full(100, 0.001)
    before = slots.soon_over
    await until(lambda: slots.soon_over < before // 4)
    assert before == 100


async def test_jobs_that_end_at_once_are_taken_on_beyond_the_slots_but_not_without_bounds() -> None:
    slots = Slots(10)
    waiting = asyncio.create_task(slots.wait_room(10))
    slots.waiting = 50
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.took_turn(100_000.0)
    await waiting
    assert slots.room == 10 - 50 + 500
    slots.took_turn(1e9)
    assert slots.room == 10 - 50 + 1000
    slots.took_turn(0.0)
    assert slots.room == 10 - 50


def test_jobs_that_hold_the_loop_are_not_taken_for_each_slot() -> None:
    slots = Slots(100)
    slots.took_turn(2.0)
    assert slots.room == 1, "the next ones start elsewhere"
    assert slots.has_half(0), "a chunk that cannot be cut does not wait for that"
    slots.waiting = 1
    assert not slots.has_room
    slots.took_turn(0.0)
    assert slots.at_hand == 1, "no job has ended since"
    slots.took_turn(200.0)
    assert slots.room == 10 - 1 + 1
    slots.go_on()
    assert slots.room == 100 - 1 + 1


async def test_what_held_the_loop_is_forgotten_after_a_while() -> None:
    slots = Slots(100)
    slots.took_turn(0.01)
    assert 100 < slots.no_longer(1000) < 300, "nobody tells when that is over"
    slots.took_turn(100.0)
    await until(lambda: slots.room == 100)
    assert slots.no_longer(5) == 5


def test_who_is_alone_takes_jobs_on_whatever_holds_the_loop() -> None:
    slots = Slots(10, 500)
    slots.took_turn(2.0)
    assert slots.room == 510
