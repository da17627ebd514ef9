"""Batches are followed for whoever looks: once for all of them, bounded in memory, and with care for what runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dashboard import follower as follower_module
from dashboard import followers as followers_module
from dashboard import idleness
from dashboard.follower import Follower, _Budget
from dashboard.followers import Followers
from dashboard.pace import Paces
from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchNotFoundError
from tests.conftest import StartWorker, until
from tests.jobs import square


def commands(redis: Any) -> dict[str, int]:
    return {name: stat["calls"] for name, stat in redis.info("commandstats").items()}


@pytest.mark.redis
async def test_however_many_look_redis_is_asked_once_a_second(producer: Producer, redis: Any) -> None:
    batch = await producer.submit(square.map(range(9)))
    followers = Followers(producer, Paces())
    redis.config_resetstat()
    found = await asyncio.gather(*(followers.get(batch.id) for _ in range(50)))
    assert len(set(map(id, found))) == 1
    assert commands(redis)["cmdstat_hgetall"] == 1
    await followers.close()


async def test_whatever_the_size_of_the_pages_each_result_is_counted_once(
    producer: Producer, worker: StartWorker
) -> None:
    followers = Followers(producer, Paces())
    async with worker():
        batch = await producer.submit(square.map(range(5000)))
        follower = await followers.get(batch.id)
        await batch.wait()
        follower.expire()
        await followers.get(batch.id)
        await until(lambda: follower.is_read)
    assert follower.digest.count == 5000
    assert sorted(follower.digest.index.jobs(range(5000))) == list(range(5000))
    await followers.close()


async def test_nobody_looks_so_nothing_is_read_and_who_looks_again_goes_on(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_LINGER", 0.0)
    batch = await producer.submit(square.map(range(50)))
    follower = Follower(producer, batch.id, Paces())
    await follower.refresh()
    await until(lambda: follower._reading is not None and follower._reading.done())
    async with worker():
        await batch.wait()
    assert follower.digest.count == 0
    monkeypatch.setattr(follower_module, "_LINGER", 60.0)
    await follower.refresh()
    await until(lambda: follower.is_read)
    assert follower.digest.count == 50
    await follower.close()


async def test_batches_nobody_looked_at_for_longest_are_forgotten(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers_module, "_MOST_BATCHES", 3)
    followers = Followers(producer, Paces())
    for number in range(5):
        await producer.submit(square.map(range(3)), batch_id=f"b{number}")
        await followers.get(f"b{number}")
        if number:
            await followers.get("b1")
    assert set(followers._followers) == {"b3", "b1", "b4"}
    await followers.close()
    assert not followers._followers


async def test_results_that_are_known_are_bounded_in_all(
    producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers_module, "_MOST_BYTES", 50 * 20)
    followers = Followers(producer, Paces())
    async with worker():
        for number in range(3):
            batch = await producer.submit(square.map(range(40)), batch_id=f"b{number}")
            await batch.wait()
            follower = await followers.get(batch.id)
            await until(lambda: follower.is_read)  # noqa: B023  # awaited at once
    await followers.get("b2")
    assert set(followers._followers) == {"b2"}
    await followers.close()


async def test_batch_that_is_not_there_leaves_nothing(producer: Producer) -> None:
    followers = Followers(producer, Paces())
    with pytest.raises(BatchNotFoundError):
        await followers.get("nobody")
    assert not followers._followers


async def test_stream_that_cannot_be_read_is_tried_again_when_somebody_looks(
    producer: Producer, worker: StartWorker, redis: Any
) -> None:
    batch = await producer.submit(square.map(range(9)))
    redis.set(keys.results(batch.id), "nonsense", ex=60)
    follower = Follower(producer, batch.id, Paces())
    await follower.refresh()
    await until(lambda: follower.problem is not None)
    redis.delete(keys.results(batch.id))
    async with worker():
        await batch.wait()
    follower.expire()
    await follower.refresh()
    await until(lambda: follower.is_read)
    await follower.close()
    assert follower.problem is None
    assert follower.digest.count == 9


def test_idleness_is_what_no_process_has_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat, now = tmp_path / "stat", 100.0
    monkeypatch.setattr(idleness, "_STAT", stat)
    monkeypatch.setattr("time.monotonic", lambda: now)
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  10 0 10 1000 5 0 0 0 0 0\ncpu0 ...\n")
    idle = idleness.Idleness()
    assert idle.cores() == 0
    now = 102.0
    stat.write_text(f"cpu  10 0 10 {1000 + 3 * ticks} 5 0 0 0 0 0\n")
    assert idle.cores() == pytest.approx(1.5)
    now = 102.1
    assert idle.cores() == pytest.approx(1.5)
    stat.unlink()
    now = 103.0
    assert idle.cores() == 0


def test_budget_spends_what_it_has_at_once_and_then_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(follower_module, "time", SimpleNamespace(monotonic=lambda: now))
    budget = _Budget(0.3)
    assert budget.spend(0.1, 0.02) == 0
    assert budget.spend(0.1, 0.02) == 0
    assert budget.spend(0.2, 0.02) == pytest.approx(5.0)
    now += 5.0
    assert budget.spend(0.1, 0.5) == 0, "what came in meanwhile is kept"
    now += 0.6
    assert budget.spend(0.6, 0.5) == pytest.approx(0.6), "but no more than at first"
