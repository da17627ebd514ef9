"""A redrive is a new batch of just the jobs that were chosen, as they were submitted; the lineage is one list."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from producer.producer import Producer
from producer.redrives.origins import read_places
from protocol import keys
from protocol.chunks import decode_chunk
from protocol.errors import BatchClosedError, OptionError
from protocol.jobs import JobSpec
from straggler import current_job, job
from tests.conftest import StartWorker, until_running
from tests.jobs import fail, nap, report, square, wait_for_file


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
        batch = await producer.submit(mixed(door, 900), timeout=1.0, grace=0)
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
        first, second = (decode_chunk(0, redis.hget(keys.chunks(name), 0), "") for name in (batch.id, again.id))
        assert list(first) == list(second)
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


# ---- the lineage


async def test_lineage_is_one_list_of_the_latest_results(producer: Producer, worker: StartWorker, door: Path) -> None:
    async with worker(concurrency=1000):
        batch = await producer.submit(mixed(door, 300), timeout=0.6, grace=0)
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
