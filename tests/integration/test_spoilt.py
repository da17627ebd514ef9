"""Whatever stands in a batch's keys: the producer's side names the key, goes on with other batches, and never hangs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchClosedError, BatchNotFoundError, ProtocolError
from protocol.settings import Settings
from tests.conftest import PATIENCE, blocking_client
from tests.jobs import square

KEYS = {
    "header": keys.batch("b"),
    "chunks": keys.chunks("b"),
    "done": keys.done("b"),
    "results": keys.results("b"),
    "batches": keys.BATCHES,
    "workers": keys.workers("default"),
    "queue": keys.queue("default"),
    "wake": keys.wake("default"),
}
TYPES = ("string", "list", "hash", "set", "zset", "stream")


def put(redis: Any, key: str, kind: str, value: bytes) -> None:
    """Put a value of another type at a key."""
    redis.delete(key)
    match kind:
        case "string":
            redis.set(key, value)
        case "list":
            redis.rpush(key, value)
        case "hash":
            redis.hset(key, value, value)
        case "set":
            redis.sadd(key, value)
        case "zset":
            redis.zadd(key, {value: 1.0})
        case "stream":
            redis.xadd(key, {value: value})
    redis.pexpire(key, 60_000)


async def use(producer: Producer, redis: Any) -> set[str]:
    """Do all that a producer can do with batch `b`; returns the keys that it names. Any other error fails the test."""

    async def collect() -> None:
        batch = await producer.attach("b")
        await batch.status()
        async with asyncio.timeout(PATIENCE):
            await batch.wait()
            await batch.results()

    async def list_others() -> None:
        found = {status.batch_id for status in await producer.batches()}
        assert "other" in found or redis.zscore(keys.BATCHES, "other") is None

    async def submit() -> None:
        await producer.submit(square.map(range(600)), batch_id="b", deadline=0.3, grace=0)

    named = set()
    for call in (list_others, producer.workers, collect, submit, collect):
        try:
            await call()
        except ProtocolError as error:
            named.add(error.key)
        except BatchNotFoundError:
            assert not redis.exists(keys.batch("b")), "only what is not there is not found"
        except BatchClosedError:
            assert int(redis.hget(keys.batch("b"), "total")) < 600, "only a smaller batch has no place for more"
    return named


@pytest.fixture
async def spoiled(producer: Producer, redis: Any) -> None:
    """Have a batch `b` whose deadline has passed, and another."""
    await producer.submit(square.map(range(3)), batch_id="other")
    await producer.submit(square.map(range(600)), batch_id="b", deadline=0.3, grace=0)


@pytest.mark.redis
@pytest.mark.usefixtures("spoiled")
@pytest.mark.parametrize("kind", ["string", "list", "stream"])
@pytest.mark.parametrize("which", list(KEYS))
async def test_value_of_another_type_is_named(producer: Producer, redis: Any, which: str, kind: str) -> None:
    right = redis.type(KEYS[which]).decode()
    put(redis, KEYS[which], kind, b"x")
    named = await use(producer, redis)
    if which == "wake" and kind == "list":
        assert named == set()
    elif kind == right:  # a done bitmap of other bits; a stream with an entry that is no results
        assert named == {KEYS[which]}
    elif which == "chunks":  # the batch closes, as the jobs can do without
        assert named == set()
        assert (await (await producer.attach("b")).status()).timeout == 600
    elif which in ("queue", "wake"):  # a closed batch needs them no more
        assert named == set()
        with pytest.raises(ProtocolError, match=f"'{KEYS[which]}': a {kind} stands there, not a "):
            await producer.submit(square.map(range(3)))
    else:
        assert named == {KEYS[which]}


@pytest.mark.redis
@pytest.mark.parametrize("which", ["header", "chunks", "results", "batches", "queue", "wake"])
async def test_submission_names_a_key_of_another_type(producer: Producer, redis: Any, which: str) -> None:
    put(redis, KEYS[which], "string", b"x")
    with pytest.raises(ProtocolError, match=f"'{KEYS[which]}'"):
        await producer.submit(square.map([]) if which == "results" else square.map(range(600)), batch_id="b")


@pytest.mark.usefixtures("spoiled")
async def test_entry_behind_the_end_is_never_read(producer: Producer, redis: Any) -> None:
    batch = await producer.attach("b")
    assert (await batch.wait()).pending == []
    redis.xadd(KEYS["results"], {"foreign": "entry"})
    assert len(await batch.results()) == 600
    assert len((await batch.wait(timeout=0)).done) == 600


@pytest.mark.usefixtures("spoiled")
async def test_results_that_are_gone_from_a_complete_batch_are_missed(producer: Producer, redis: Any) -> None:
    batch = await producer.attach("b")
    assert (await batch.wait()).pending == []
    redis.delete(KEYS["results"])
    with pytest.raises(ProtocolError, match=f"'{KEYS['results']}': the batch is complete, and its results are not all"):
        await batch.results()


@pytest.mark.usefixtures("spoiled")
async def test_list_of_batches_goes_on_past_one_that_cannot_be_read(
    producer: Producer, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    redis.hset(keys.batch("b"), "total", "many")
    redis.zadd(keys.BATCHES, {b"\xff\xfe": time.time(), b"gone": time.time()})
    assert [status.batch_id for status in await producer.batches()] == ["other"]
    assert "batch b cannot be read: unreadable data in Redis key 'straggler:batch:b'" in caplog.text


async def test_worker_that_says_nonsense_counts_as_none(producer: Producer, redis: Any) -> None:
    for number, slots in enumerate([b"7", b"\xff", b"-3", b"9" * 30]):
        redis.zadd(keys.workers("default"), {f"w{number}": time.time()})
        redis.hset(keys.worker(f"w{number}"), "slots", slots)
    put(redis, keys.worker("w9"), "string", b"x")
    redis.zadd(keys.workers("default"), {"w9": time.time(), b"\xff": time.time()})
    for key in redis.keys("straggler:worker*"):
        redis.pexpire(key, 60_000)
    assert await (await producer.submit(square.map([1]))).workers() == 6


FIELDS = (
    "queue", "options", "keep_ms", "total", "closed", "done", "taken", "success", "timeout", "created_at", "deadline",
    "finished_at",
)  # fmt: skip


@pytest.mark.redis
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_in_our_keys_are_more_than_a_named_error(redis_url: str, data: st.DataObject) -> None:
    async def check(redis: Any) -> None:
        async with Producer(redis_url, settings=Settings()) as producer:
            await producer.submit(square.map(range(3)), batch_id="other")
            await producer.submit(square.map(range(600)), batch_id="b", deadline=0.3, grace=0)
            spoil(redis, data)
            assert await use(producer, redis) <= set(KEYS.values())

    with blocking_client(redis_url) as redis:
        redis.flushall()
        asyncio.run(check(redis))


def spoil(redis: Any, data: st.DataObject) -> None:
    """Write any bytes into one of the batch's keys, as the type that it should have or as another."""
    value = data.draw(st.binary(min_size=1, max_size=20), "value")
    how = data.draw(st.sampled_from(["type", "field", "row", "chunk", "bits"]), "how")
    if how == "type":
        put(
            redis, KEYS[data.draw(st.sampled_from(list(KEYS)), "key")], data.draw(st.sampled_from(TYPES), "kind"), value
        )
    elif how == "field":
        redis.hset(KEYS["header"], data.draw(st.sampled_from(FIELDS), "field"), value)
    elif how == "row":
        redis.xadd(
            KEYS["results"], data.draw(st.sampled_from([{"common": "{}", "rows": value}, {value: value}]), "row")
        )
        redis.pexpire(KEYS["results"], 60_000)
    elif how == "chunk":
        redis.hset(KEYS["chunks"], data.draw(st.sampled_from([b"0", value]), "field"), value)
    else:
        redis.setbit(KEYS["done"], data.draw(st.integers(0, 700), "bit"), 1)
        redis.pexpire(KEYS["done"], 60_000)
