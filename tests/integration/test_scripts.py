"""Every script is safe when it is sent twice: a reply may be lost, and who waits for it sends the same call again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from random import Random
from typing import Any
from uuid import uuid4

import fakeredis
import pytest
from redis.exceptions import ResponseError

from producer.producer import Producer
from producer.redrives.origins import Selection, write_selection
from producer.redrives.redrive import Redrive
from producer.submission import submit_call
from protocol import keys, memory
from protocol.attempts import encode_attempt
from protocol.batches import BatchOptions
from protocol.connection import encode_payload
from protocol.lua import source
from protocol.recording import encode_common, encode_row, record_rows
from protocol.settings import Settings
from tests.conftest import until
from tests.hand import Hand, streamed
from tests.jobs import fail, report, square
from workers.claims import Claimed
from workers.crashes import Crash

LIFETIME_MS = int(keys.OPEN_BATCH_LIFETIME * 1000)


def snapshot(redis: Any) -> dict[str, Any]:
    """Read all keys, lifetimes aside."""
    found = {}
    for key in sorted(redis.keys()):
        kind = redis.type(key).decode()
        match kind:
            case "string":
                content = redis.get(key)
            case "hash":
                content = redis.hgetall(key)
            case "zset":
                # A lease's end, to which renewing moves a chunk's due time, is a lifetime, too; so is a sign of life.
                timed = key.startswith((b"straggler:workers:", b"straggler:queues"))
                content = [
                    (m, timed or redis.exists(b"arq:in-progress:" + m) or s)
                    for m, s in redis.zrange(key, 0, -1, withscores=True)
                ]
            case "list":
                content = redis.lrange(key, 0, -1)
            case "stream":
                content = redis.xrange(key)
            case _:
                raise AssertionError(f"{key!r} is a {kind}")
        found[key.decode()] = (kind, content)
    return found


# ---- each script: what leads to the call, and the call


Case = Callable[[Producer, Hand], Awaitable[Callable[[], Awaitable[Any]]]]


async def _submit(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    producer.scripts = hand.scripts
    return lambda: producer.submit(square.map(range(6)), batch_id="b", deadline=100)


async def _submit_more(_: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    chunk = (0, 1, encode_payload("b", 0, 1, 1.0), b'[{"function":"square","args":[1]}]')
    call = submit_call("b", "default", BatchOptions(), chunk, total=None, must_exist=False)
    return lambda: hand.scripts.run_all([call])


async def _submit_nothing(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    producer.scripts = hand.scripts
    return lambda: producer.submit(streamed(square.map([])), batch_id="b")


async def _claim(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(600))), batch_id="b")

    async def claim_one() -> None:
        chunks = await hand.claim(100)
        assert [chunk.chunk_id for chunk in chunks] == ["b:0"]

    return claim_one


async def _record(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    assert await hand.record(batch, 1, 3) == 2
    return lambda: hand.record(batch, 0, 1, 2, 3)


async def _record_the_last(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    return lambda: hand.record(batch, *range(6))


def _record_and_let_go(count: int, outcome: str) -> Case:
    async def case(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
        batch = await producer.submit(streamed(square.map(range(count))), batch_id="b")
        await hand.claim()
        return lambda: hand.record(batch, *range(min(count, 256)), over=[("b:0", 0, outcome)])

    return case


async def _record_the_last_before_a_callback(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    callback = report.spec("runs")
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b", on_complete=callback)
    await hand.claim()
    return lambda: hand.record(batch, *range(6))


async def _submit_nothing_before_a_callback(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    producer.scripts = hand.scripts
    return lambda: producer.submit(streamed(square.map([])), batch_id="b", on_complete=report.spec("runs"))


async def _redrive(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    batch = await producer.submit(streamed(fail.map("abc")), batch_id="b", deadline=100)
    rows = [encode_row(index=index, status="lost", reason="") for index in range(2)]
    call = record_rows("b", encode_common("fail", "a", 1.0), range(2), ["lost"] * 2, rows)
    await hand.scripts.run(*call)
    redrive = Redrive(hand.scripts, batch.id, "again", report.spec("runs"), {})
    await redrive._take_over()
    await write_selection(hand.scripts.redis, "b", Selection(frozenset({"lost"})), "chosen")
    return lambda: redrive._begin("chosen")


async def _delete(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await (await _redrive(producer, hand))()
    return lambda: hand.scripts.run("delete", (keys.batch("again"), keys.BATCHES), ("again",))


async def _renew(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b")
    for claimed in await hand.claim():
        hand.leases.hold(claimed.chunk_id, 1e12)
    return hand.leases._renew


async def _alive(_: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    return hand.leases.beat


def _release(outcome: str, handed_back: dict[int, bytes] | None = None) -> Case:
    async def prepare(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
        await producer.submit(streamed(square.map(range(6))), batch_id="b")
        claimed, *_ = await hand.claim()
        await hand.leases.say_at_work("b:0", "b", 1)
        return lambda: hand.leases.release(claimed, outcome, handed_back)

    return prepare


def _give_back(kept: int) -> Case:
    async def prepare(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
        await producer.submit(streamed(square.map(range(6))), batch_id="b")
        claimed, *_ = await hand.claim()
        await other_lives(hand)
        return lambda: hand.leases.give_back(claimed, kept, b"")

    return prepare


async def other_lives(hand: Hand) -> None:
    """Let another worker of the queue be alive."""
    await hand.scripts.redis.zadd(keys.workers("default"), {"another": 1.0})
    await hand.scripts.redis.expire(keys.workers("default"), 60)


async def _alone(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    return lambda: hand.leases.say_at_work("b:0", "b", 1)


async def _alone_no_more(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await (await _alone(producer, hand))()
    return lambda: hand.leases.say_at_work("b:0", "b", None)


async def _retry(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(fail.map("abcdef")), batch_id="b", retries=3)
    claimed, *_ = await hand.claim()
    return lambda: hand.retry(claimed, 1, delay=5)


async def _retry_again(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(fail.map("abcdef")), batch_id="b", retries=3)
    claimed, *_ = await hand.claim()
    await hand.retry(claimed, 1)
    [own] = await hand.claim()
    assert own.chunk_id == "b:0+1"
    return lambda: hand.retry(own, 1, failures=2, delay=5)


async def _cancel_some(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b")
    call = ("cancel", CANCEL_KEYS, (LIFETIME_MS, "why", 1, 3))
    return lambda: hand.scripts.run_all([call])


async def _cancel_all(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    return lambda: hand.scripts.run_all([("cancel", CANCEL_KEYS, (LIFETIME_MS, "why"))])


async def _cancel_an_open_batch_that_has_all_its_results(
    producer: Producer, hand: Hand
) -> Callable[[], Awaitable[Any]]:
    await (await _submit_more(producer, hand))()
    [chunk] = await hand.claim()
    await hand.record(await producer.attach("b"), 0)
    await hand.leases.release(chunk, "succeeded")
    return lambda: hand.scripts.run_all([("cancel", CANCEL_KEYS, (LIFETIME_MS, "why"))])


async def _control(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    await hand.scripts.run("cancel", CANCEL_KEYS, (LIFETIME_MS, "why", 1, 3))
    return lambda: hand.scripts.run_all([("control", (), (LIFETIME_MS, "b:0", "b", 0, 6, ""))])


async def _extend(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await producer.submit(streamed(square.map(range(6))), batch_id="b", deadline=60)
    options, deadline = '{"deadline":60.0}', f"{producer.clock.now() + 90:.6f}"
    call = ("extend", (keys.batch("b"),), (options, '{"deadline":90.0}', deadline))
    return lambda: hand.scripts.run_all([call])


def _add(unique: bool) -> Case:
    async def prepare(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
        producer.scripts = hand.scripts
        batch = await producer.open_batch(batch_id="b")
        await batch.add([square.spec(n, key=str(n)) for n in range(3)], unique=unique)
        return lambda: batch.add([square.spec(n, key=str(n)) for n in (2, 3, 3)], unique=unique)

    return prepare


def _close(how: str, done: int = 0) -> Case:
    async def prepare(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
        producer.scripts = hand.scripts
        batch = await producer.open_batch(batch_id="b")
        await batch.add(streamed([square.spec(1)]))
        [chunk] = await hand.claim()
        if done:
            await hand.record(batch, 0)
            await hand.leases.release(chunk, "succeeded")
        last = await producer.redis.xrevrange(keys.results("b"), count=1)
        return lambda: batch._close(how or last[0][0].decode())

    return prepare


async def _record_the_last_of_an_idle_batch(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    await _close("when idle")(producer, hand)
    batch = await producer.attach("b")
    await batch.close(when_idle=True)
    return lambda: hand.record(batch, 0)


async def _record_a_failure_too_many(producer: Producer, hand: Hand) -> Callable[[], Awaitable[Any]]:
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b", max_failures=1)
    await hand.claim()
    return lambda: hand.record(batch, 1, 3, status="failure")


CANCEL_KEYS = tuple(make("b") for make in (keys.batch, keys.cancelled, keys.done, keys.chunks))
CRASH = Crash(worker="a", start=0, stop=2, ending="signal SIGSEGV", ended_at=5.0).model_dump_json()
HARMLESS = Crash(
    worker="a", start=0, stop=5, ending="killed", ended_at=5.0, doubtful=True, harmless=True
).model_dump_json()
HANDED_BACK = encode_attempt(attempt=1, status="handed back", worker="a", started_at=4.0, finished_at=5.0)
CASES: dict[str, Case] = {
    "submit": _submit,
    "submit more": _submit_more,
    "submit nothing": _submit_nothing,
    "claim": _claim,
    "record": _record,
    "record the last": _record_the_last,
    "record and let go": _record_and_let_go(300, "succeeded"),
    "record the last and let go": _record_and_let_go(6, "succeeded"),
    "record the last and let go, to be kept": _record_and_let_go(6, "ended"),
    "record the last before a callback": _record_the_last_before_a_callback,
    "submit nothing before a callback": _submit_nothing_before_a_callback,
    "redrive": _redrive,
    "delete": _delete,
    "renew": _renew,
    "alive": _alive,
    "release succeeded": _release("succeeded"),
    "release ended": _release("ended"),
    "release again": _release("again"),
    "release again with what was at work": _release("again", {1: HANDED_BACK, 4: HANDED_BACK}),
    "release crash": _release(CRASH),
    "release a crash that was harmless": _release(HARMLESS),
    "giveback": _give_back(2),
    "giveback of all": _give_back(0),
    "alone": _alone,
    "alone no more": _alone_no_more,
    "retry": _retry,
    "retry of a retry": _retry_again,
    "cancel some": _cancel_some,
    "cancel all": _cancel_all,
    "cancel an open batch that has all its results": _cancel_an_open_batch_that_has_all_its_results,
    "control": _control,
    "extend": _extend,
    "add": _add(unique=False),
    "add each once": _add(unique=True),
    "close": _close("now"),
    "close a batch that has all its results": _close("now", 1),
    "close when idle": _close("when idle"),
    "close a batch that is idle": _close("when idle", 1),
    "close what was taken": _close("", 1),
    "record the last of an idle batch": _record_the_last_of_an_idle_batch,
    "record a failure too many": _record_a_failure_too_many,
}


@pytest.mark.parametrize("is_flushed", [False, True], ids=["", "after SCRIPT FLUSH"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_second_call_changes_nothing(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any, case: Case, is_flushed: bool
) -> None:
    hand, _ = hands
    call = await case(producer, hand)
    before, between = snapshot(redis), []

    async def resend() -> None:
        between.append(snapshot(redis))
        if is_flushed:
            redis.script_flush()

    hand.scripts.between = resend
    await call()
    after = snapshot(redis)
    assert between == [after]
    assert before != after or case is _renew


def sources() -> dict[str, str]:
    """Read all scripts, and what they include, by name."""
    found = (files("protocol") / "scripts").iterdir()
    return {path.name.removesuffix(".lua"): path.read_text() for path in found if path.name.endswith(".lua")}


def test_every_script_has_its_case() -> None:
    scripts = {name for name, source in sources().items() if "what other scripts include" not in source}
    assert scripts == {name.split()[0] for name in CASES}


async def test_batch_that_has_ended_ends_no_second_time(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    await (await _record_the_last_before_a_callback(producer, hands[0]))()
    before = snapshot(redis)
    assert redis.eval(f"{source('ending')}\nreturn end_if_complete(KEYS[1]) and 1 or 0", 1, keys.batch("b")) == 0
    assert snapshot(redis) == before


def test_batches_end_in_one_place() -> None:
    assert [name for name, source in sources().items() if "'*', 'end'" in source] == ["ending"]


# ---- what others do in between


async def test_claim_brings_the_same_chunks_again(producer: Producer, hands: tuple[Hand, Hand], redis: Any) -> None:
    a, _ = hands
    await producer.submit(streamed(square.map(range(600))), batch_id="b")

    async def nothing() -> None:
        pass

    a.scripts.between = nothing
    await a.claim(256)
    [[first], [second]] = a.scripts.replies
    assert first[7:] == second[7:]
    assert [chunk[0] for chunk in first[7:]] == [b"b:0"]
    assert len(redis.keys("arq:in-progress:*")) == 1


async def test_jobs_that_were_given_back_are_so_however_often_that_is_sent(
    producer: Producer, hands: tuple[Hand, Hand]
) -> None:
    hand, _ = hands
    give_back = await _give_back(2)(producer, hand)

    async def nothing() -> None:
        pass

    hand.scripts.between = nothing
    await give_back()
    assert hand.scripts.replies == ([1], [1]), "or the worker would start what another one has"


async def test_one_claim_brings_all_chunks_that_there_is_room_for(producer: Producer, hands: tuple[Hand, Hand]) -> None:
    hand, _ = hands
    for number in range(20):
        # Those of one millisecond stand in the order of their names.
        await producer.submit([square.spec(number)], batch_id=f"b{number:02}")
    assert [chunk.chunk_id for chunk in await hand.claim(100)] == [f"b{number:02}:0" for number in range(16)]


async def test_holders_are_found_without_a_search(producer: Producer, hands: tuple[Hand, Hand], redis: Any) -> None:
    hand, _ = hands
    await producer.submit([square.spec(1)], batch_id="b")
    await hand.claim(1)
    assert redis.object("encoding", keys.holders("b")) == b"hashtable"


@pytest.mark.parametrize("step", [1, 2, 100], ids=["all", "a large hash", "a small hash"])
@pytest.mark.parametrize("room", [3, 1000])
async def test_claim_tells_which_jobs_were_cancelled_and_which_have_failed(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any, step: int, room: int
) -> None:
    hand, _ = hands
    jobs = square.map(range(2000))
    await producer.submit(streamed(jobs), batch_id="b")
    cancelled = dict.fromkeys(range(5, 1200, step), "why")
    failures = dict.fromkeys(range(1300, 2000, step), 2)
    redis.hset(keys.cancelled("b"), mapping=cancelled)
    redis.hset(keys.retries("b"), mapping=failures)
    redis.hset(keys.batch("b"), "control", 1)
    for key in keys.cancelled("b"), keys.retries("b"):
        redis.expire(key, 60)
    while some := await hand.claim(room):
        for chunk in some:
            indexes = range(chunk.payload.first, chunk.payload.first + chunk.payload.count)
            assert chunk.orders is not None
            assert chunk.orders.cancelled == {index: "why" for index in indexes if index in cancelled}
            assert chunk.failures == {index: 2 for index in indexes if index in failures}


async def test_a_small_hash_is_read_as_a_whole_once_a_claim(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    if isinstance(redis, fakeredis.FakeRedis):
        pytest.skip("fakeredis counts no commands")
    hand, _ = hands
    await producer.submit(square.map(range(1000)), batch_id="b")
    redis.hset(keys.cancelled("b"), mapping=dict.fromkeys(range(0, 1000, 3), "why"))
    redis.expire(keys.cancelled("b"), 60)
    redis.hset(keys.batch("b"), "control", 1)
    redis.config_resetstat()
    assert sum(len(chunk.orders.cancelled) for chunk in await hand.claim(1000) if chunk.orders) > 300
    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1


async def test_late_claim_leaves_alone_what_others_have_taken(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    a, b = hands
    await producer.submit(streamed(square.map(range(512))), batch_id="b")

    async def lapse() -> None:
        redis.delete("arq:in-progress:b:0", keys.claim("a"))
        redis.zadd(keys.queue("default"), {"b:0": 0})
        await b.claim(256)  # misses a first
        redis.zadd(keys.queue("default"), {"b:0": 0})
        assert {chunk.chunk_id for chunk in await b.claim(256)} <= {"b:0", "b:100", "b:256"}
        await b.claim(512)
        assert redis.get("arq:in-progress:b:0") == b"b"

    a.scripts.between = lapse
    assert await a.claim(100) == []
    assert redis.get("arq:in-progress:b:0") == b"b"


@pytest.mark.parametrize("outcome", ["succeeded", "ended", "again", CRASH])
async def test_release_takes_no_lease_from_who_claimed_next(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any, outcome: str
) -> None:
    a, b = hands
    await producer.submit(streamed(square.map(range(3))), batch_id="b")
    [claimed, *_] = await a.claim()
    states = []

    async def claim_next() -> None:
        if outcome in ("again", CRASH):
            assert claimed.chunk_id in {chunk.chunk_id for chunk in await b.claim()}
            assert redis.get("arq:in-progress:b:0") == b"b"
        states.append(snapshot(redis))

    a.scripts.between = claim_next
    await a.leases.release(claimed, outcome)
    assert states == [snapshot(redis)]


async def test_retry_of_what_has_run_since_runs_nothing_again(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    a, b = hands
    batch = await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=3)
    [claimed, *_] = await a.claim()
    states = []

    async def run_it() -> None:
        [own] = [chunk for chunk in await b.claim() if chunk.payload.index is not None]
        assert await b.record(batch, own.payload.index or 0) == 1
        await b.leases.release(own, "ended")
        states.append(snapshot(redis))

    a.scripts.between = run_it
    await a.retry(claimed, 0)
    assert states == [snapshot(redis)]
    assert not redis.exists("arq:job:b:0+0")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_memory", [False, True])
async def test_record_keeps_each_jobs_first_result_however_groups_overlap(
    redis_url: str, is_memory: bool, seed: int
) -> None:
    url, random = f"memory://{uuid4().hex}" if is_memory else redis_url, Random(seed)
    first: dict[int, str] = {}
    async with Producer(url, settings=Settings()) as producer:
        batch = await producer.submit(square.map(range(700)), batch_id="b")
        for number in range(30):
            hand = Hand(producer.redis, f"w{number}")
            start = random.randrange(700)
            group = {*range(start, min(700, start + random.choice([1, 5, 40, 64, 70, 300]))), random.randrange(700)}
            new = {index: hand.name for index in group if index not in first}
            assert await hand.record(batch, *sorted(group)) == len(new)
            first |= new
        await Hand(producer.redis, "last").record(batch, *range(700))
        found = {result.index: result.worker for result in await batch.results()}
    memory.forget(url)
    assert found == {index: first.get(index, "last") for index in range(700)}


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_record_after_the_end_writes_nothing(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any, is_deleted: bool
) -> None:
    a, b = hands
    batch = await producer.submit(streamed(square.map(range(3))), batch_id="b", keep_results=0.05 if is_deleted else 60)
    states = []

    async def end() -> None:
        await b.record(batch, 0, 1, 2)
        if is_deleted:
            await until(lambda: not redis.exists(keys.batch("b")))
        states.append(snapshot(redis))

    a.scripts.between = end
    await a.record(batch, 1)
    assert a.scripts.replies == ([1], [-1 if is_deleted else 0])
    assert states == [snapshot(redis)]


async def test_failure_under_a_lapsed_lease_that_nobody_took_runs_again(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    a, b = hands
    await producer.submit(streamed(fail.map("ab")), batch_id="b", retries=1)
    [claimed, *_] = await a.claim()
    redis.delete("arq:in-progress:b:0")  # a Redis that stood still longer than the lease
    await a.retry(claimed, 0)
    await a.leases.release(claimed, "ended")
    assert "b:0+0" in {chunk.chunk_id for chunk in await b.claim()}


async def test_chunk_that_is_over_goes_with_its_last_results(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, _ = hands
    batch = await producer.submit(streamed(square.map(range(300))), batch_id="b")
    assert [chunk.chunk_id for chunk in await hand.claim(256)] == ["b:0"]
    assert await hand.record(batch, *range(256), over=[("b:0", 0, "succeeded")]) == 256
    assert redis.keys("arq:*:b:0") == []
    assert redis.zrange(keys.queue("default"), 0, -1) == [b"b:256"]
    assert redis.hkeys(keys.chunks("b")) == [b"256"]
    assert not redis.exists(keys.holders("b"))


async def test_chunk_is_let_go_of_though_its_jobs_had_their_results(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, other = hands
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    await other.record(batch, *range(6))
    assert await hand.record(batch, *range(6), over=[("b:0", 0, "ended")]) == 0
    assert redis.keys("arq:*") == []
    assert redis.zcard(keys.queue("default")) == 0


async def test_chunk_of_a_batch_that_is_gone_is_let_go_of(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, _ = hands
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    redis.delete(keys.batch("b"))
    assert await hand.record(batch, *range(6), over=[("b:0", 0, "succeeded")]) == -1
    assert redis.keys("arq:*") == []


async def test_chunk_that_another_worker_has_by_now_stays_with_it(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, other = hands
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    redis.delete(keys.ARQ_IN_PROGRESS + "b:0")
    redis.zadd(keys.queue("default"), {"b:0": 0})
    assert await other.claim() == []  # its holder is missed for a moment
    redis.zadd(keys.queue("default"), {"b:0": 0})
    [taken] = await other.claim()
    assert [crash.worker for crash in taken.crashes] == ["a"]
    assert await hand.record(batch, 0, 1, 2, over=[("b:0", 0, "succeeded")]) == 3
    assert redis.get(keys.ARQ_IN_PROGRESS + "b:0") == b"b"
    assert redis.zrange(keys.queue("default"), 0, -1) == [b"b:0"]
    assert not redis.exists(keys.crashes("b")), "it lives"


async def test_chunk_whose_results_cannot_be_kept_is_not_let_go_of(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, _ = hands
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    redis.set(keys.results("b"), "no stream", px=60_000)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await hand.record(batch, *range(6), over=[("b:0", 0, "succeeded")])
    assert redis.get(keys.ARQ_IN_PROGRESS + "b:0") == b"a"
    assert redis.exists(keys.ARQ_JOB + "b:0")


async def test_queue_that_is_no_queue_does_not_undo_a_record(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, _ = hands
    batch = await producer.submit(streamed(square.map(range(6))), batch_id="b")
    await hand.claim()
    redis.set(keys.queue("default"), "no queue", px=60_000)
    assert await hand.record(batch, *range(6), over=[("b:0", 0, "succeeded")]) == 6
    assert (await batch.status()).complete


async def test_lease_of_a_chunk_that_is_being_let_go_of_is_not_taken_for_lost(hands: tuple[Hand, Hand]) -> None:
    hand, _ = hands
    hand.leases.hold("b:0", float("inf"))
    hand.leases.expect_release("b:0")
    await hand.leases.beat()
    assert hand.leases.lost == 0
    hand.leases.forget("b:0")
    hand.leases.hold("b:0", float("inf"))
    await hand.leases.beat()
    assert hand.leases.lost == 1


# ---- what runs again stands where it stood


async def claim_before_others_come(producer: Producer, hand: Hand) -> Claimed:
    await producer.submit(streamed(square.map(range(3))), batch_id="first")
    [claimed] = await hand.claim(3)
    await producer.submit(square.map(range(600)), batch_id="later")
    return claimed


async def test_lapsed_chunk_is_taken_before_what_has_come_since(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    redis_of_both = hands[0].scripts.redis
    dead, other = Hand(redis_of_both, "dead", lease=0.2), Hand(redis_of_both, "other", lease=0.2)
    await claim_before_others_come(producer, dead)

    async def is_taken() -> bool:  # it is missed for a moment before that
        return "first:0" in [chunk.chunk_id for chunk in await other.claim(3)]

    await until(lambda: not redis.exists(keys.ARQ_IN_PROGRESS + "first:0"))
    assert not await is_taken()
    await asyncio.sleep(0.05)
    assert await is_taken()
    assert redis.ttl(keys.leases("default")) > 0


async def test_chunk_that_is_handed_back_is_taken_before_what_has_come_since(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, other = hands
    claimed = await claim_before_others_come(producer, hand)
    await hand.leases.release(claimed, "again")
    assert not redis.exists(keys.leases("default"))
    assert [chunk.chunk_id for chunk in await other.claim(3)] == ["first:0"]


async def test_chunk_that_is_given_back_whole_is_nobodys(
    producer: Producer, hands: tuple[Hand, Hand], redis: Any
) -> None:
    hand, other = hands
    claimed = await claim_before_others_come(producer, hand)
    redis.zadd(keys.workers("default"), {"another": 1})
    redis.expire(keys.workers("default"), 60)
    assert await hand.leases.give_back(claimed, 0, b"") == 1
    assert not redis.exists(keys.leases("default"), keys.holders("first"))
    assert [chunk.chunk_id for chunk in await other.claim(3)] == ["first:0"]
