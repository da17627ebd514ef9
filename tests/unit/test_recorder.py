"""The recorder: results leave in groups, none is lost while Redis cannot be reached, and none is written twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic_core import from_json
from redis.exceptions import AuthenticationError

from protocol import keys
from protocol.clock import RedisClock
from protocol.connection import ArqRedis, Call, Scripts
from protocol.entries import decode_entry
from protocol.reach import connected
from protocol.recording import OverChunk, Row, encode_common, encode_row
from tests.conftest import until
from workers.recorder import Recorder


class FlakyScripts(Scripts):
    """Scripts of a Redis that can be taken away: then they wait."""

    def __init__(self, redis: ArqRedis) -> None:
        super().__init__(redis)
        self.is_up = asyncio.Event()
        self.is_up.set()
        self.calls: list[Call] = []

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        await self.is_up.wait()
        self.calls += calls
        return await super().run_all(calls)


@pytest.fixture
async def scripts(redis_url: str) -> AsyncIterator[FlakyScripts]:
    async with connected(redis_url) as redis:
        yield FlakyScripts(redis)


@pytest.fixture
async def recorder(scripts: FlakyScripts) -> AsyncIterator[Recorder]:
    recorder = Recorder(scripts, RedisClock(), "default", "w", limit=1000)
    recorder.start()
    yield recorder
    scripts.is_up.set()
    await recorder.close()


@pytest.fixture
def batch(redis: Any) -> str:
    """Give a batch of 1,000 jobs."""
    redis.hset(keys.batch("b"), mapping={"total": 1000, "closed": 1, "done": 0, "keep_ms": 60_000, "options": "{}"})
    redis.pexpire(keys.batch("b"), 60_000)
    return "b"


class Owner:
    """Who waits for results to be written: chunk b:0, which is over with the last of them, or none."""

    def __init__(self, results: int = 0) -> None:
        self.recorded: list[int] = []
        self.left = results
        self.is_released = False

    def count_recorded(self, count: int) -> None:
        self.recorded.append(count)
        self.left -= count

    def over_with(self, count: int) -> OverChunk | None:
        return ("b:0", 0, "succeeded", "") if count == self.left else None

    def note_release(self) -> None:
        self.is_released = True


def put(recorder: Recorder, batch_id: str, row: Row, owner: Owner | None = None, attempt: int = 1) -> None:
    recorder.put(batch_id, encode_common("f", "w", float(attempt)), [row], owner or Owner())


def row(index: int, status: str = "success", value: Any = None) -> Row:
    return index, status, encode_row(index=index, status=status, value=value)


def indexes(redis: Any, batch_id: str = "b") -> list[list[int]]:
    """Read the indexes of each stream entry."""
    entries = [entry for _, entry in redis.xrange(keys.results(batch_id)) if b"rows" in entry]
    return [[row["index"] for row in from_json(entry[b"rows"])] for entry in entries]


async def test_a_lone_result_is_written_at_once(recorder: Recorder, redis: Any, batch: str) -> None:
    owner = Owner()
    put(recorder, batch, row(3), owner)
    await until(lambda: owner.recorded)
    assert (owner.recorded, indexes(redis)) == ([1], [[3]])


async def test_results_of_a_moment_leave_together(
    recorder: Recorder, scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    for index in range(600):
        put(recorder, batch, row(index))
    await recorder.close()
    assert [len(entry) for entry in indexes(redis)] == [256, 256, 88]
    assert len(scripts.calls) == 3


async def test_large_results_leave_in_smaller_pieces(recorder: Recorder, redis: Any, batch: str) -> None:
    for index in range(6):
        put(recorder, batch, row(index, value="x" * 400_000))
    await recorder.close()
    assert [len(entry) for entry in indexes(redis)] == [3, 3]


async def test_only_the_first_result_of_a_job_is_kept(recorder: Recorder, redis: Any, batch: str) -> None:
    put(recorder, batch, row(1, value="first"))
    put(recorder, batch, row(5))
    for index in (0, 1, 2, 5, 9):
        put(recorder, batch, row(index, "failure", "second,\n[1]"), attempt=2)
    await recorder.close()
    assert indexes(redis) == [[1, 5], [0, 2, 9]]
    counts = redis.hmget(keys.batch(batch), "done", "success", "failure")
    assert counts == [b"5", b"2", b"3"]


async def test_the_last_result_ends_the_batch_once(recorder: Recorder, redis: Any, batch: str) -> None:
    for _ in range(2):
        for index in range(1000):
            if recorder._held >= 1000:
                await recorder.room()
            put(recorder, batch, row(index))
    await recorder.close()
    ends = [entry for _, entry in redis.xrange(keys.results(batch)) if b"end" in entry]
    assert ends == [{b"end": b"1000"}]
    assert redis.hget(keys.batch(batch), "finished_at")
    assert 0 < redis.pttl(keys.results(batch)) <= 60_000
    assert 0 < redis.pttl(keys.done(batch)) <= 60_000


async def test_results_wait_while_redis_is_away_and_lose_nothing(
    recorder: Recorder, scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    scripts.is_up.clear()
    for index in range(999):
        put(recorder, batch, row(index))
    assert not recorder.is_full
    put(recorder, batch, row(999))
    room = asyncio.create_task(recorder.room())
    await asyncio.sleep(0.05)
    assert not room.done(), "nothing new is taken on past the limit"
    scripts.is_up.set()
    await room
    assert not recorder.is_full
    await recorder.close()
    assert sorted(index for entry in indexes(redis) for index in entry) == list(range(1000))


async def test_large_results_fill_the_recorder_before_their_number_does(
    scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    recorder = Recorder(scripts, RedisClock(), "default", "w", limit_bytes=100_000)
    recorder.start()
    scripts.is_up.clear()
    for index in range(2):
        assert not recorder.is_full
        put(recorder, batch, row(index, value="x" * 50_000))
    assert recorder.is_full
    scripts.is_up.set()
    await recorder.room()
    assert not recorder.is_full
    await recorder.close()
    assert sorted(index for entry in indexes(redis) for index in entry) == [0, 1]


async def test_a_recorder_that_closes_waits_for_redis_only_so_long_and_says_what_is_lost_on_it(
    scripts: FlakyScripts, redis: Any, batch: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(scripts, RedisClock(), "default", "w")
    recorder.start()
    scripts.is_up.clear()
    owner = Owner()
    for index in range(300):
        put(recorder, batch, row(index), owner)
    await recorder.close(0.05)
    await recorder.close(60)  # what was given up is not waited for again
    assert [record.message for record in caplog.records] == ["300 results could not be recorded: their jobs run again"]
    assert (indexes(redis), owner.recorded) == ([], [])


async def test_what_only_people_can_mend_costs_no_result(
    recorder: Recorder,
    scripts: FlakyScripts,
    redis: Any,
    batch: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("workers.recorder._UNTIL_MENDED", 0.01)
    run_all = scripts.run_all

    async def refuse(calls: Sequence[Call]) -> list[Any]:
        raise AuthenticationError("invalid password")

    monkeypatch.setattr(scripts, "run_all", refuse)
    put(recorder, batch, row(0))
    await until(lambda: caplog.records)
    monkeypatch.setattr(scripts, "run_all", run_all)
    await recorder.close()
    assert indexes(redis) == [[0]]
    assert caplog.records[0].levelno == logging.ERROR
    assert "invalid password" in caplog.records[0].message


async def test_results_of_a_batch_that_is_gone_are_dropped(recorder: Recorder, redis: Any) -> None:
    owner = Owner()
    put(recorder, "gone", row(0), owner)
    await recorder.close()
    assert owner.recorded == [1]
    assert redis.keys("*") == []


async def test_spoilt_keys_cost_their_own_results_only(recorder: Recorder, redis: Any, batch: str) -> None:
    for name in ("spoilt", "spoilt-too"):
        redis.hset(keys.batch(name), mapping={"total": 1, "closed": 1, "done": 0, "keep_ms": 60_000})
        redis.pexpire(keys.batch(name), 60_000)
        redis.set(keys.results(name), "no stream", px=60_000)
    owner = Owner()
    for name in ("spoilt", batch, "spoilt-too"):
        put(recorder, name, row(0), owner)
    await recorder.close()
    assert owner.recorded == [1, 1, 1], "nobody waits for what cannot be written"
    assert indexes(redis) == [[0]]
    assert not redis.exists(keys.done("spoilt")), "no bit without its result"


async def test_owners_are_told_how_many_of_theirs_are_written(recorder: Recorder, batch: str) -> None:
    one, other = Owner(), Owner()
    for index in range(5):
        put(recorder, batch, row(index), one if index < 3 else other)
    await recorder.close()
    assert (one.recorded, other.recorded) == ([3], [2])


async def test_while_other_jobs_run_results_wait_for_company(
    monkeypatch: pytest.MonkeyPatch, scripts: FlakyScripts, redis: Any, batch: str
) -> None:
    monkeypatch.setattr("workers.recorder._LINGER", 0.5)  # a busy machine takes longer than 2 ms over the loop below
    recorder = Recorder(scripts, RedisClock(), "default", "w", is_busy=lambda: True)
    recorder.start()
    for index in range(50):
        put(recorder, batch, row(index))
        await asyncio.sleep(0)
    await recorder.close()
    assert len(indexes(redis)) <= 3, "one at once, the others together"


def success(index: int, value: bytes = b"1") -> Row:
    return index, "success", value, 1.0 + index, 1.5 + index, f"key,\n{index}", "g" if index % 3 else None


async def test_successes_that_are_alike_leave_as_columns(recorder: Recorder, redis: Any, batch: str) -> None:
    for index in (*range(100), 200, 150):
        put(recorder, batch, success(index, b"%d" % index))
    put(recorder, batch, row(300))
    await recorder.close()
    [(_, columns), (_, rows)] = redis.xrange(keys.results(batch))
    assert columns[b"indexes"] == b"0-99,200,150"
    for name in (b"started", b"took", b"values", b"keys", b"functions"):
        assert len(from_json(columns[name])) == 102
    assert rows[b"indexes"] == b"300"
    assert redis.hmget(keys.batch(batch), "done", "success") == [b"103", b"103"]
    assert [index for index in range(400) if redis.getbit(keys.done(batch), index)] == [*range(100), 150, 200, 300]


async def test_of_successes_that_are_alike_only_the_first_of_each_job_is_kept(
    recorder: Recorder, redis: Any, batch: str
) -> None:
    for index in (0, 47, 48, 97):
        put(recorder, batch, success(index, b'"first"'))
    for index in range(100):
        put(recorder, batch, success(index, b'"second,\\n%d"' % index), attempt=2)
    await recorder.close()
    results = [result for _, entry in redis.xrange(keys.results(batch)) for result in decode_entry(batch, entry, "key")]
    assert sorted(result.index for result in results) == list(range(100))
    for result in results:
        is_first = result.index in (0, 47, 48, 97)
        assert result.unwrap() == "first" if is_first else f"second,\n{result.index}"
        assert (result.key, result.function) == (f"key,\n{result.index}", "g" if result.index % 3 else "f")
        assert result.duration == pytest.approx(0.5)
        assert result.started_at is not None
    assert redis.hmget(keys.batch(batch), "done", "success") == [b"100", b"100"]


def take(redis: Any, batch: str) -> None:
    """Give chunk b:0 to worker w."""
    for key in (keys.ARQ_IN_PROGRESS, keys.ARQ_JOB):
        redis.set(f"{key}b:0", "w", px=60_000)
    redis.zadd(keys.queue("default"), {"b:0": 1})
    redis.hset(keys.chunks(batch), "0", "[]")
    for key in (keys.queue("default"), keys.chunks(batch)):
        redis.pexpire(key, 60_000)


def is_held(redis: Any) -> bool:
    return bool(redis.exists(keys.ARQ_IN_PROGRESS + "b:0", keys.ARQ_JOB + "b:0", keys.queue("default")))


async def test_a_chunk_leaves_with_its_last_results(recorder: Recorder, redis: Any, batch: str) -> None:
    take(redis, batch)
    owner = Owner(results=3)
    for index in range(2):
        put(recorder, batch, row(index), owner)
    await until(lambda: owner.recorded)
    assert is_held(redis)
    assert not owner.is_released
    put(recorder, batch, row(2), owner)
    await until(lambda: owner.left == 0)
    assert not is_held(redis)
    assert owner.is_released


async def test_a_chunk_whose_results_leave_in_pieces_stays(recorder: Recorder, redis: Any, batch: str) -> None:
    take(redis, batch)
    owner = Owner(results=2)
    put(recorder, batch, row(0), owner)
    put(recorder, batch, success(1), owner)  # they go together, in two calls, of which the first may fail
    await recorder.close()
    assert (owner.left, owner.is_released) == (0, False)
    assert is_held(redis)


async def test_a_chunk_whose_results_are_given_up_stays(recorder: Recorder, redis: Any, batch: str) -> None:
    take(redis, batch)
    redis.set(keys.results(batch), "no stream", px=60_000)
    owner = Owner(results=1)
    put(recorder, batch, row(0), owner)
    await recorder.close()
    assert (owner.left, owner.is_released) == (0, False)
    assert is_held(redis)


async def test_a_chunk_leaves_though_the_answer_was_lost(
    recorder: Recorder, scripts: FlakyScripts, redis: Any, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(redis, batch)
    run_all = scripts.run_all

    async def lose_the_first_answer(calls: Sequence[Call]) -> list[Any]:
        await run_all(calls)
        return await run_all(calls)

    monkeypatch.setattr(scripts, "run_all", lose_the_first_answer)
    owner = Owner(results=1)
    put(recorder, batch, row(0), owner)
    await recorder.close()
    assert owner.is_released
    assert not is_held(redis)
    assert indexes(redis) == [[0]]
