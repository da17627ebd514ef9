"""A redrive that is made twice, cut off, or whose parent, Redis or producer goes in the middle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer.batch import Batch
from producer.cutting import Chunk
from producer.producer import Producer
from producer.redrives.origins import read_places, write_selection
from producer.redrives.redrive import Redrive
from protocol import keys
from protocol.errors import BatchClosedError, BatchLostError, OptionError, ProtocolError
from protocol.settings import Settings
from tests.conftest import ROOT, StartProcess, StartWorker, until
from tests.integration.test_redrive import messages, mixed, statuses
from tests.jobs import fail, square
from tests.redis_server import RedisServer


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
        batch = await producer.submit([fail.spec("no")], keep_results=1)
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
    monkeypatch.setattr("producer.redrives.redrive.CHUNKS_A_TRIP", 1)
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

    monkeypatch.setattr("producer.redrives.redrive.LARGEST_AMONG_WORKERS", 5)
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

    monkeypatch.setattr("producer.redrives.redrive.write_selection", choose_and_delete)
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

    monkeypatch.setattr("producer.redrives.redrive.read_places", read_and_break)
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
import producer.redrives.redrive
from straggler import Producer

producer.redrives.redrive.CHUNKS_A_TRIP, producer.redrives.redrive.LARGEST_AMONG_WORKERS = 1, 50
taken = producer.redrives.redrive.Redrive._submit

async def slowly(self, chunks):
    print("trip", flush=True)
    await asyncio.sleep(0.02)
    return await taken(self, chunks)

producer.redrives.redrive.Redrive._submit = slowly

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
    server: RedisServer, worker_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, trips = Redrive._submit, []

    async def restart_and_submit(self: Redrive, chunks: list[Chunk]) -> tuple[int, bool]:
        trips.append(chunks)
        if len(trips) == 3:
            server.kill()
            await asyncio.to_thread(server.start)
        return await submit(self, chunks)

    monkeypatch.setattr("producer.redrives.redrive.CHUNKS_A_TRIP", 1)
    monkeypatch.setattr("producer.redrives.redrive.LARGEST_AMONG_WORKERS", 50)
    monkeypatch.setattr(Redrive, "_submit", restart_and_submit)
    worker_process(redis_url=server.url, lease=2)
    async with Producer(server.url, settings=Settings()) as producer:
        batch = await producer.submit(fail.map(map(str, range(400))))
        await batch.results()
        again = await batch.retry("failure")
        assert messages(await again.results()) == list(map(str, range(400)))
        assert len(trips) > 3


async def test_redrive_reads_a_few_places_and_chunks_at_a_time(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("origins", "redrive", "lineage"):
        monkeypatch.setattr(f"producer.redrives.{module}.PLACES_A_PAGE", 7)
    monkeypatch.setattr("producer.redrives.redrive.CHUNKS_A_PAGE", 2)
    async with worker(concurrency=10):
        batch = await producer.submit(fail.map(map(str, range(500))))
        await batch.results()
        again = await batch.retry("failure", indexes=range(3, 500, 2))
        wanted = list(map(str, range(3, 500, 2)))
        assert messages(await again.results()) == wanted
        assert messages(await again.results(lineage=True)) == list(map(str, range(500)))
