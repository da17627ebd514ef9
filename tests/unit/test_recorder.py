"""The recorder: results leave in groups, none is lost while Redis cannot be reached, and none is written twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic_core import from_json
from redis.exceptions import ConnectionError as RedisConnectionError

from protocol import keys
from protocol.connection import Call, Scripts, connected
from protocol.results import encode_common, encode_row
from tests.conftest import until
from workers.recorder import Group, Recorder
from workers.rows import Row


class FlakyScripts(Scripts):
    """Scripts of a Redis that can be taken away."""

    is_down = False
    calls: list[Call]

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        if self.is_down:
            raise RedisConnectionError("gone")
        self.calls = [*getattr(self, "calls", []), *calls]
        return await super().run_all(calls)


@pytest.fixture
async def scripts(redis_url: str) -> AsyncIterator[FlakyScripts]:
    async with connected(redis_url) as redis:
        yield FlakyScripts(redis)


@pytest.fixture
async def recorder(scripts: FlakyScripts) -> AsyncIterator[Recorder]:
    recorder = Recorder(scripts, limit=1000)
    recorder.start()
    yield recorder
    scripts.is_down = False
    await recorder.close()


@pytest.fixture
def batch(redis: Any) -> str:
    """Give a batch of 1,000 jobs."""
    redis.hset(keys.batch("b"), mapping={"total": 1000, "closed": 1, "done": 0, "keep_ms": 60_000, "options": "{}"})
    redis.pexpire(keys.batch("b"), 60_000)
    return "b"


def group(batch_id: str, recorded: list[int] | None = None) -> Group:
    return Group(batch_id, encode_common("f", "w", 1, 1.0), (recorded if recorded is not None else []).append)


def row(index: int, status: str = "success", value: Any = None) -> Row:
    return index, status, encode_row(index=index, status=status, value=value)


def indexes(redis: Any, batch_id: str = "b") -> list[list[int]]:
    """Read the indexes of each stream entry."""
    entries = [entry for _, entry in redis.xrange(keys.results(batch_id)) if b"rows" in entry]
    return [[row["index"] for row in from_json(entry[b"rows"])] for entry in entries]


async def test_a_lone_result_is_written_at_once(recorder: Recorder, redis: Any, batch: str) -> None:
    recorded: list[int] = []
    recorder.put(group(batch, recorded), row(3))
    await until(lambda: recorded, timeout=1)
    assert (recorded, indexes(redis)) == ([1], [[3]])


async def test_results_of_a_moment_leave_together(
    recorder: Recorder, scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    several = group(batch)
    for index in range(600):
        recorder.put(several, row(index))
    await recorder.close()
    assert [len(entry) for entry in indexes(redis)] == [256, 256, 88]
    assert len(scripts.calls) == 3


async def test_large_results_leave_in_smaller_pieces(recorder: Recorder, redis: Any, batch: str) -> None:
    several = group(batch)
    for index in range(6):
        recorder.put(several, row(index, value="x" * 400_000))
    await recorder.close()
    assert [len(entry) for entry in indexes(redis)] == [3, 3]


async def test_only_the_first_result_of_a_job_is_kept(recorder: Recorder, redis: Any, batch: str) -> None:
    first, second = group(batch), group(batch)
    recorder.put(first, row(1, value="first"))
    recorder.put(first, row(5))
    await asyncio.sleep(0)
    for index in (0, 1, 2, 5, 9):
        recorder.put(second, row(index, "failure", "second,\n[1]"))
    await recorder.close()
    assert indexes(redis) == [[1, 5], [0, 2, 9]]
    counts = redis.hmget(keys.batch(batch), "done", "success", "failure")
    assert counts == [b"5", b"2", b"3"]


async def test_the_last_result_ends_the_batch_once(recorder: Recorder, redis: Any, batch: str) -> None:
    several = group(batch)
    for _ in range(2):
        for index in range(1000):
            if recorder._held >= 1000:
                await recorder.room()
            recorder.put(several, row(index))
    await recorder.close()
    ends = [entry for _, entry in redis.xrange(keys.results(batch)) if b"end" in entry]
    assert ends == [{b"end": b"1000"}]
    assert redis.hget(keys.batch(batch), "finished_at")
    assert 0 < redis.pttl(keys.results(batch)) <= 60_000
    assert 0 < redis.pttl(keys.done(batch)) <= 60_000


async def test_results_wait_while_redis_is_away_and_lose_nothing(
    recorder: Recorder, scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    scripts.is_down = True
    several = group(batch)
    for index in range(1000):
        recorder.put(several, row(index))
    room = asyncio.create_task(recorder.room())
    await asyncio.sleep(0.05)
    assert not room.done(), "nothing new is taken on past the limit"
    scripts.is_down = False
    await room
    await recorder.close()
    assert sorted(index for entry in indexes(redis) for index in entry) == list(range(1000))


async def test_results_of_a_batch_that_is_gone_are_dropped(recorder: Recorder, redis: Any) -> None:
    recorded: list[int] = []
    recorder.put(group("gone", recorded), row(0))
    await recorder.close()
    assert recorded == [1]
    assert redis.keys("*") == []


async def test_spoilt_keys_cost_their_own_results_only(recorder: Recorder, redis: Any, batch: str) -> None:
    for name in ("spoilt", "spoilt-too"):
        redis.hset(keys.batch(name), mapping={"total": 1, "closed": 1, "done": 0, "keep_ms": 60_000})
        redis.pexpire(keys.batch(name), 60_000)
        redis.set(keys.results(name), "no stream", px=60_000)
    recorded: list[int] = []
    recorder.put(group("spoilt", recorded), row(0))
    recorder.put(group(batch, recorded), row(0))
    recorder.put(group("spoilt-too", recorded), row(0))
    await recorder.close()
    assert recorded == [1, 1, 1], "nobody waits for what cannot be written"
    assert indexes(redis) == [[0]]
    assert not redis.exists(keys.done("spoilt")), "no bit without its result"
