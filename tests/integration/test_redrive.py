"""A redrive is a new batch of just the jobs that were chosen, as they were submitted; the lineage is one list."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.cutting import Chunk
from producer.origins import read_places, write_selection
from producer.producer import Producer
from producer.redrive import Redrive
from protocol import keys
from protocol.errors import BatchClosedError, BatchLostError, OptionError, ProtocolError
from protocol.jobs import JobSpec
from protocol.settings import Settings
from straggler import current_job, job
from tests.conftest import ROOT, StartProcess, StartWorker, until, until_running
from tests.jobs import fail, nap, report, square, wait_for_file
from tests.redis_server import RedisServer


@job
async def hang_unless(path: Path, data: bytes = b"", *, more: float = 0.0) -> tuple[str, float]:
    """Hang until the file is there."""
    while not path.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.005)
    return data.decode(), more + current_job().remaining()


def mixed(door: Path, count: int) -> list[JobSpec[Any]]:
    """Make jobs of which every third hangs, and every third of those after it fails."""
    kinds: list[Any] = [square.spec, lambda _: hang_unless.spec(door), lambda number: fail.spec(str(number))]
    return [kinds[number % 3](number) for number in range(count)]


def statuses(results: list[Any]) -> Counter[str]:
    return Counter(result.status for result in results)


def messages(results: list[Any]) -> list[str]:
    return [result.message for result in results]


# ---- what is redriven, and with what


async def test_redrive_runs_just_the_jobs_that_timed_out(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=1000):
        batch = await producer.submit(mixed(door, 900), timeout=0.3, grace=0)
        assert statuses(await batch.results()) == {"success": 300, "timeout": 300, "failure": 300}
        door.touch()
        again = await batch.retry(timeout=60)
        results = await again.results()
    assert statuses(results) == {"success": 300}
    places = await read_places(producer.redis, again.id, 0, 300)
    assert [index for index, _ in places] == list(range(1, 900, 3))
    status = await again.status()
    assert (status.parent, status.total, status.closed) == (batch.id, 300, True)
    assert (await batch.status()).children == (again.id,)


async def test_jobs_keep_their_arguments_keys_and_options(
    producer: Producer, worker: StartWorker, door: Path, redis: Any
) -> None:
    result: Any
    spec = hang_unless.spec(door, b"bytes", more=1e300, key="k", timeout=0.1, queue_timeout=50)
    async with worker():
        batch = await producer.submit([spec], grace=0, retries=1, backoff=0.01, retry_on=("timeout",), name="n")
        [result] = await batch.results()
        assert result.attempt == 2
        again = await batch.retry()
        [result] = await again.results()
        assert (result.status, result.key, result.limit, result.attempt) == ("timeout", "k", 0.1, 2)
        assert again.options == batch.options
        first, second = (json.loads(redis.hget(keys.chunks(name), 0)) for name in (batch.id, again.id))
        assert first == second
        door.touch()
        third = await again.retry(timeout=60, retries=0, name=None)
        [result] = await third.results()
    assert result.value[0] == "bytes"
    assert third.options.name is None
    assert third.options.timeout == 60


async def test_own_timeout_gives_way_to_the_one_that_is_asked_for(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    result: Any
    async with worker():
        batch = await producer.submit([hang_unless.spec(door, timeout=0.1, key="k")], grace=0)
        await batch.results()
        again = await batch.retry(timeout=0.2)
        [result] = await again.results()
    assert (result.limit, result.key) == (0.2, "k")


async def test_choice_by_status_index_and_result(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=100):
        batch = await producer.submit(mixed(door, 30), timeout=0.2, grace=0)
        await batch.results()

        async def origins(**choice: Any) -> list[int]:
            again = await batch.retry(**choice)
            results = await again.results()
            return [index for index, _ in await read_places(producer.redis, again.id, 0, len(results))]

        assert await origins(statuses="failure") == list(range(2, 30, 3))
        assert await origins(statuses=("failure", "timeout", "cancelled", "lost")) == [n for n in range(30) if n % 3]
        assert await origins(indexes=[29, 28, 3, 2]) == [2, 28, 29]
        assert await origins(statuses=["timeout"], indexes=range(10)) == [1, 4, 7]
        assert await origins(where=lambda result: getattr(result, "message", "") in ("5", "8")) == [5, 8]
        assert len((await batch.status()).children) == 5


async def test_redrive_of_a_batch_that_goes_on_takes_what_has_its_result(
    producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(concurrency=10):
        batch = await producer.submit([fail.spec("no"), wait_for_file.spec(door), fail.spec("again")])
        await batch.wait(return_when="FIRST_COMPLETED")
        await until_running(batch, 1)
        async for result in batch.as_completed():
            if result.index == 2:
                break
        again = await batch.retry("failure")
        assert len(await again.results()) == 2
        door.touch()
        assert statuses(await batch.results(lineage=True)) == {"failure": 2, "success": 1}


async def test_redrive_stops_early_where_that_is_asked_for(producer: Producer, worker: StartWorker) -> None:
    async with worker(concurrency=1):
        batch = await producer.submit([*fail.map("ab"), *[nap.spec(60.0)] * 5], timeout=0.05, grace=0)
        await batch.results()
        again = await batch.retry(("failure", "timeout"), max_failures=1, timeout=0.3)
        found = statuses(await again.results())
    assert found["failure"] == 2
    assert found["cancelled"] >= 3
    assert (await again.status()).stopped


async def test_added_jobs_are_redriven_too(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.open_batch()
        for number in range(3):
            await batch.add([fail.spec(str(number), key=f"k{number}"), square.spec(number)])
        await batch.close()
        await batch.results()
        again = await batch.retry("failure")
        results: list[Any] = await again.results()
        assert [(result.key, result.message) for result in results] == [(f"k{n}", str(n)) for n in range(3)]
        with pytest.raises(BatchClosedError):
            await again.add([square.spec(1)])


async def test_nothing_to_redrive_is_an_empty_batch(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit(square.map(range(10)))
        await batch.results()
        again = await batch.retry()
        assert await again.results() == []
    status = await again.status()
    assert status.complete
    assert status.total == 0
    assert [result.index for result in await again.results(lineage=True)] == list(range(10))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"statuses": ("success",)}, "jobs of status 'success' cannot be redriven: use timeout, failure"),
        ({"statuses": "lots"}, "jobs of status 'lots'"),
        ({"indexes": [1, -1]}, "index -1 cannot be"),
        ({"timeout": 0}, "batch option timeout: .*, got 0"),
        ({"batch_id": "no good"}, "batch_id 'no good' cannot be"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line(producer: Producer, choice: Any, message: str) -> None:
    batch = await producer.submit(square.map(range(3)))
    with pytest.raises(OptionError, match=message) as raised:
        await batch.retry(**choice)
    assert "\n" not in str(raised.value)
    assert (await batch.status()).children == ()


async def test_redrive_has_a_callback_of_its_own(producer: Producer, worker: StartWorker, tmp_path: Path) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], on_complete=report.spec(tmp_path / "first"))
        await batch.results()
        again = await batch.retry("failure")
        await again.results()
        third = await batch.retry("failure", on_complete=report.spec(tmp_path / "second"))
        await third.results()
        assert (await again.status()).callback is None
        callback = await producer.attach((await third.status()).callback or "")
        [value] = await callback.gather()
    assert value["total"] == 1


# ---- again, cut off, gone


async def test_same_id_again_is_the_same_redrive(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=100):
        batch = await producer.submit(mixed(door, 90), timeout=0.2, grace=0)
        await batch.results()
        first = await batch.retry(batch_id="again")
        second = await batch.retry("failure", batch_id="again")  # what was chosen first stays chosen
        assert (await second.status()).total == 30
        assert statuses(await first.results()) == {"timeout": 30}
    assert (await batch.status()).children == ("again",)


async def test_id_of_another_batch_is_refused(producer: Producer) -> None:
    batch = await producer.submit(square.map(range(3)))
    await producer.submit(square.map(range(3)), batch_id="other")
    with pytest.raises(OptionError, match="'other' is another batch, no redrive of"):
        await batch.retry(batch_id="other")
    assert (await batch.status()).children == ()


async def test_redrive_of_a_batch_that_is_gone_says_so(producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], keep_results=0.2)
        await batch.results()
        again = await batch.retry("failure", keep_results=60)
        await again.results()
        await until(lambda: _is_gone(producer, batch))
        with pytest.raises(BatchLostError, match=f"'{batch.id}' was in this Redis and is gone"):
            await batch.retry("failure", batch_id="more")
        with pytest.raises(BatchLostError, match=f"'{batch.id}'"):
            await again.results(lineage=True)
        assert len(await again.results()) == 1


def _is_gone(producer: Producer, batch: Batch[Any]) -> bool:
    from tests.conftest import blocking_client  # noqa: PLC0415

    with blocking_client(producer.url) as client:
        return not client.exists(keys.batch(batch.id))


async def test_chosen_job_whose_chunk_is_gone_is_said_before_anything_is_begun(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")])
        await batch.results()
    redis.delete(keys.chunks(batch.id))
    with pytest.raises(ProtocolError, match=f"{keys.chunks(batch.id)}.*1 of the 1 jobs to redrive"):
        await batch.retry("failure", batch_id="again")
    assert not redis.exists(keys.batch("again"))


async def test_redrive_past_its_deadline_is_closed_with_what_it_has(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(3)), deadline=0.1, grace=0)
    assert statuses(await batch.results()) == {"timeout": 3}
    await batch.retry(batch_id="again", deadline=60)
    redis.hset(keys.batch("again"), mapping={"deadline": 1, "closed": 0, "total": 0})
    with pytest.raises(BatchClosedError, match="'again' is closed with 0 jobs"):
        await batch.retry(batch_id="again", deadline=60)


async def test_same_redrive_by_several_producers_at_once_has_each_job_once(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.redrive.CHUNKS_A_TRIP", 1)
    async with worker(concurrency=10):
        batch = await producer.submit(fail.map(map(str, range(300))))
        await batch.results()
        handles = await asyncio.gather(*(batch.retry("failure", batch_id="again") for _ in range(4)))
        for again in handles:
            assert messages(await again.results()) == list(map(str, range(300)))
    assert (await batch.status()).children == ("again",)


async def test_redrive_goes_on_behind_what_another_producer_of_it_has_sent(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Redrive._submit
    others: list[Chunk] = []

    async def submit_after_another(self: Redrive, chunks: list[Chunk]) -> tuple[int, bool]:
        if not others:
            others.append(Chunk(0))
            for job in chunks[0]._jobs[:3]:
                others[0].put(job)
            self._count, count = 100, self._count  # so that it closes nothing
            assert await submit(self, others) == (3, False)
            self._count = count
        return await submit(self, chunks)

    monkeypatch.setattr("producer.redrive.chunk_size", lambda *_: 5)
    async with worker():
        batch = await producer.submit(fail.map(map(str, range(50))))
        await batch.results()
        monkeypatch.setattr(Redrive, "_submit", submit_after_another)
        again = await batch.retry("failure")
        assert messages(await again.results()) == list(map(str, range(50)))


async def test_parent_that_goes_before_the_redrive_begins_is_said(
    producer: Producer, worker: StartWorker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")])
        await batch.results()

    async def choose_and_delete(*arguments: Any) -> None:
        await write_selection(*arguments)
        await batch.delete()

    monkeypatch.setattr("producer.redrive.write_selection", choose_and_delete)
    with pytest.raises(BatchLostError, match=f"'{batch.id}'"):
        await batch.retry("failure", batch_id="again")
    assert not redis.exists(keys.batch("again"))


@pytest.mark.parametrize("what", ["batch", "chunks", "origins"])
async def test_what_goes_while_jobs_are_copied_is_said(
    producer: Producer, worker: StartWorker, redis: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")])
        await batch.results()

    async def read_and_break(*arguments: Any) -> Any:
        if what == "origins":
            redis.delete(keys.origins("again"))
        places = await read_places(*arguments)
        redis.delete(keys.chunks(batch.id))
        if what == "batch":
            await batch.delete()
        return places

    monkeypatch.setattr("producer.redrive.read_places", read_and_break)
    error, named = {
        "batch": (BatchLostError, f"batch '{batch.id}'"),
        "chunks": (ProtocolError, f"{keys.chunks(batch.id)}.*field 0 is gone"),
        "origins": (ProtocolError, f"{keys.origins('again')}.*0 bytes stand there for 1 jobs"),
    }[what]
    with pytest.raises(error, match=named):
        await batch.retry("failure", batch_id="again")


async def test_spoilt_keys_are_named(producer: Producer, worker: StartWorker, redis: Any) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], batch_id="b")
        await batch.results()
    redis.hset(keys.chunks("b"), "0", "no chunk")
    with pytest.raises(ProtocolError, match=f"{keys.chunks('b')}.*field 0"):
        await batch.retry("failure", batch_id="again")
    assert not redis.exists(keys.batch("again"))
    redis.set(keys.chunks("again"), "spoilt", ex=60)
    redis.hset(keys.chunks("b"), "0", b'[{"function":"fail","args":["no"]}]')
    with pytest.raises(ProtocolError, match=keys.chunks("again")):
        await batch.retry("failure", batch_id="again")


REDRIVER = """
import asyncio, sys
import producer.redrive
from straggler import Producer

producer.redrive.CHUNKS_A_TRIP = 1
taken = producer.redrive.Redrive._submit

async def slowly(self, chunks):
    print("trip", flush=True)
    await asyncio.sleep(0.02)
    return await taken(self, chunks)

producer.redrive.Redrive._submit = slowly

async def main():
    async with Producer(sys.argv[1]) as producer:
        await (await producer.attach("b")).retry("failure", batch_id="again")
        print("all", flush=True)

asyncio.run(main())
"""


@pytest.mark.redis
async def test_redrive_whose_producer_is_killed_goes_on_with_the_same_id(
    producer: Producer, worker_process: StartProcess, redis_url: str, redis: Any
) -> None:
    worker_process()
    batch = await producer.submit((fail.spec(str(n)) if n % 2 else square.spec(n) for n in range(2000)), batch_id="b")
    assert statuses(await batch.results())["failure"] == 1000
    command = [sys.executable, "-c", REDRIVER, redis_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as dying:
        assert dying.stdout is not None
        for _ in range(5):
            assert await asyncio.to_thread(dying.stdout.readline) == "trip\n"
        dying.kill()
    begun = int(redis.hget(keys.batch("again"), "total"))
    assert 0 < begun < 1000
    again = await batch.retry("failure", batch_id="again")
    results = await again.results()
    assert messages(results) == [str(number) for number in range(1, 2000, 2)]


@pytest.mark.redis
async def test_redrive_goes_on_after_a_restart_of_redis(
    worker_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, trips = Redrive._submit, []
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()

    async def restart_and_submit(self: Redrive, chunks: list[Chunk]) -> tuple[int, bool]:
        trips.append(chunks)
        if len(trips) == 3:
            server.kill()
            await asyncio.to_thread(server.start)
        return await submit(self, chunks)

    monkeypatch.setattr("producer.redrive.CHUNKS_A_TRIP", 1)
    monkeypatch.setattr(Redrive, "_submit", restart_and_submit)
    worker_process(redis_url=server.url, lease=2)
    try:
        async with Producer(server.url, settings=Settings()) as producer:
            batch = await producer.submit(fail.map(map(str, range(400))))
            await batch.results()
            again = await batch.retry("failure")
            assert messages(await again.results()) == list(map(str, range(400)))
            assert len(trips) > 3
    finally:
        server.stop()


async def test_redrive_reads_a_few_places_and_chunks_at_a_time(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("origins", "redrive", "lineage"):
        monkeypatch.setattr(f"producer.{module}.PLACES_A_PAGE", 7)
    monkeypatch.setattr("producer.redrive.CHUNKS_A_PAGE", 2)
    async with worker(concurrency=10):
        batch = await producer.submit(fail.map(map(str, range(500))))
        await batch.results()
        again = await batch.retry("failure", indexes=range(3, 500, 2))
        wanted = list(map(str, range(3, 500, 2)))
        assert messages(await again.results()) == wanted
        assert messages(await again.results(lineage=True)) == list(map(str, range(500)))


# ---- the lineage


async def test_lineage_is_one_list_of_the_latest_results(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=1000):
        batch = await producer.submit(mixed(door, 300), timeout=0.3, grace=0)
        await batch.results()
        second = await batch.retry(statuses=("timeout", "failure"))
        await second.results()
        door.touch()
        third = await second.retry(timeout=60)
        merged = await third.results(lineage=True)
        assert [result.index for result in merged] == list(range(300))
        assert statuses(merged) == {"success": 200, "failure": 100}
        assert {result.job_id.split(":")[0] for result in merged[0::3]} == {batch.id}
        assert {result.job_id.split(":")[0] for result in merged[1::3]} == {third.id}
        assert {result.job_id.split(":")[0] for result in merged[2::3]} == {second.id}
        assert merged == await batch.results(lineage=True) == await second.results(lineage=True)
        assert messages(merged[2::3]) == list(map(str, range(2, 300, 3)))


async def test_redrive_keeps_its_ancestors_for_as_long_again(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    async with worker():
        batch = await producer.submit([fail.spec("no")], keep_results=50)
        await batch.results()
        for name in (keys.batch, keys.chunks, keys.results, keys.done):
            redis.pexpire(name(batch.id), 20_000)
        again = await batch.retry("failure")
        await again.results()
        for name in (keys.batch, keys.chunks, keys.results, keys.done):
            assert redis.pttl(name(batch.id)) > 40_000
        assert 40_000 < redis.pttl(keys.origins(again.id)) <= 50_000


async def test_lineage_waits_for_redrives_that_go_on(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker():
        batch = await producer.submit([hang_unless.spec(door), nap.spec(0.0)], timeout=0.1, grace=0)
        await batch.results()
        await batch.retry(timeout=60)
        waiting = asyncio.create_task(batch.results(lineage=True))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        door.touch()
        assert statuses(await waiting) == {"success": 2}
