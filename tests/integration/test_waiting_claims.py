"""An idle worker waits with its claim: Redis runs it as soon as something is there, and nothing of it gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from producer.producer import Producer
from protocol import keys
from protocol.clock import RedisClock
from protocol.connection import Call, Scripts, connect
from tests.conftest import StartWorker, until
from tests.jobs import square
from workers.claims import Claims, Found
from workers.starting.slots import Slots

pytestmark = pytest.mark.redis

SLOTS = 100
LONG = 5.0


class LostScripts(Scripts):
    """Scripts whose awaited replies may be lost on their way, or never come."""

    is_lost = is_held = False

    async def run_when_pushed(self, key: str, timeout: float, call: Call) -> Any:
        reply = await super().run_when_pushed(key, timeout, call)
        if self.is_held:
            await asyncio.Event().wait()
        return None if self.is_lost else reply


@pytest.fixture
async def scripts(redis_url: str) -> AsyncIterator[LostScripts]:
    redis = connect(redis_url)
    yield LostScripts(redis)
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
async def claims(scripts: LostScripts) -> Claims:
    made = Claims(scripts, "default", "a", RedisClock(), 10.0)
    assert names(await made.due(Slots(SLOTS))) == []  # the script is known now
    return made


def names(found: Found) -> list[str]:
    return [chunk.chunk_id for chunk in found.chunks]


def clients(redis: Any) -> int:
    """Count those that wait in a blocking command."""
    return int(redis.info("clients")["blocked_clients"])


async def wait(claims: Claims, redis: Any) -> asyncio.Task[Found]:
    """Begin to wait for a token."""
    waiting = asyncio.create_task(claims.when_woken(Slots(SLOTS), LONG))
    await until(lambda: clients(redis) == 1)
    return waiting


async def test_chunk_is_leased_as_soon_as_it_is_there(claims: Claims, producer: Producer, redis: Any) -> None:
    waiting = await wait(claims, redis)
    await producer.submit(square.map([1]), batch_id="b")
    # Redis has done both in one step: there is no moment in which nobody holds it.
    assert redis.get(keys.ARQ_IN_PROGRESS + "b:0") == b"a"
    assert names(await waiting) == ["b:0"]


async def test_chunk_that_was_there_before_is_leased_at_once(claims: Claims, producer: Producer) -> None:
    await producer.submit(square.map([1]), batch_id="b")
    assert names(await claims.when_woken(Slots(SLOTS), LONG)) == ["b:0"]


async def test_wait_ends_with_a_look(claims: Claims, producer: Producer, redis: Any) -> None:
    await producer.submit(square.map([1]), batch_id="b")
    redis.delete(keys.wake("default"))  # a token that was lost with the worker that took it
    assert names(await claims.when_woken(Slots(SLOTS), 0.01)) == ["b:0"]


async def test_no_more_is_leased_than_slots_stand_empty(claims: Claims, producer: Producer) -> None:
    await producer.submit(square.map([1]), batch_id="b")
    await producer.submit(square.map([1]), batch_id="c")
    slots = Slots(2)
    assert slots.try_take()
    slots.took_turn(1e6)  # jobs end at once, so that more would be taken on by a claim that is answered at once
    assert len(names(await claims.when_woken(slots, LONG))) == 1


async def test_chunks_of_a_lost_reply_come_at_once(
    claims: Claims, scripts: LostScripts, producer: Producer, redis: Any
) -> None:
    scripts.is_lost = True
    waiting = await wait(claims, redis)
    await producer.submit(square.map([1]), batch_id="b")
    assert names(await waiting) == ["b:0"]
    assert not redis.exists(keys.crashes("b"))


async def test_worker_whose_connection_is_cut_claims_at_once(claims: Claims, producer: Producer, redis: Any) -> None:
    waiting = await wait(claims, redis)
    [blocked] = [client for client in redis.client_list() if client["cmd"] == "blpop"]
    redis.client_kill_filter(_id=blocked["id"])
    assert names(await waiting) == []
    waiting = await wait(claims, redis)
    await producer.submit(square.map([1]), batch_id="b")
    assert names(await waiting) == ["b:0"]


async def test_script_that_redis_has_forgotten_is_taught_again(claims: Claims, producer: Producer, redis: Any) -> None:
    waiting = await wait(claims, redis)
    redis.script_flush()
    await producer.submit(square.map([1]), batch_id="b")
    assert names(await waiting) == ["b:0"]


async def test_queue_that_is_none_is_said(claims: Claims, redis: Any) -> None:
    redis.set(keys.wake("default"), "no list", px=60_000)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await claims.when_woken(Slots(SLOTS), LONG)


async def test_recall_brings_what_was_leased(
    claims: Claims, scripts: LostScripts, producer: Producer, redis: Any
) -> None:
    scripts.is_held = True
    waiting = await wait(claims, redis)
    await producer.submit(square.map([1]), batch_id="b")
    waiting.cancel()
    await asyncio.wait({waiting})
    assert names(await claims.recall()) == ["b:0"]
    assert names(await claims.recall()) == []


async def test_recalled_claim_leases_nothing_when_it_comes(
    claims: Claims, scripts: LostScripts, producer: Producer, redis: Any
) -> None:
    waiting = await wait(claims, redis)
    call = claims._awaited
    assert call is not None
    waiting.cancel()
    await asyncio.wait({waiting})
    assert names(await claims.recall()) == []
    await producer.submit(square.map([1]), batch_id="b")
    await scripts.run(*call)  # it was still on its way
    assert not redis.exists(keys.ARQ_IN_PROGRESS + "b:0")
    assert redis.llen(keys.wake("default")) == 1, "whoever is there runs it"


async def test_recall_leases_nothing_that_is_due(claims: Claims, producer: Producer, redis: Any) -> None:
    waiting = await wait(claims, redis)
    waiting.cancel()
    await asyncio.wait({waiting})
    await until(lambda: clients(redis) == 0)
    await producer.submit(square.map([1]), batch_id="b")
    assert names(await claims.recall()) == []
    assert not redis.exists(keys.ARQ_IN_PROGRESS + "b:0")
    assert redis.llen(keys.wake("default")) == 1


async def test_worker_in_this_process_waits_so_too(worker: StartWorker, producer: Producer) -> None:
    async with worker() as working:
        for number in range(3):
            await until(lambda: working.crew.claims._awaited)
            assert await (await producer.submit(square.map([number]))).gather() == [number**2]
