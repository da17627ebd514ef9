"""The pages that everybody may read, each on batches that workers have run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboard.live import events
from dashboard.parts import Part
from producer.arguments import read_job
from producer.producer import Producer
from protocol import keys
from protocol.errors import BatchNotFoundError, ProtocolError
from straggler import JobSpec
from tests.conftest import PATIENCE, StartWorker, until
from tests.dashboard.jobs import ATTACK, attack, fail_with, fetch_number, wait_with_a_note
from tests.jobs import hang, square


async def text_of(client: httpx.AsyncClient, path: str, status_code: int = 200) -> str:
    """Load a page; one that does not know all results yet is loaded again."""
    async with asyncio.timeout(PATIENCE):
        while "results so far" in (response := await client.get(path)).text:  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.1)
    assert response.status_code == status_code, response.text
    return response.text


async def until_said(client: httpx.AsyncClient, path: str, words: str) -> str:
    """Load a page again and again until it says something; returns its words then."""
    async with asyncio.timeout(PATIENCE):
        while words not in (text := plain((await client.get(path)).text)):  # noqa: ASYNC110  # nobody tells us
            await asyncio.sleep(0.1)
    return text


def plain(html: str) -> str:
    """Leave a page's words."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# ---- the list of batches


async def test_no_batches_tell_how_to_submit_one(client: httpx.AsyncClient) -> None:
    assert "straggler submit" in await text_of(client, "/")


async def test_batches_are_listed_newest_first_and_searched_by_name_id_and_metadata(
    client: httpx.AsyncClient, producer: Producer
) -> None:
    await producer.submit(square.map(range(3)), batch_id="one", name="Nightly Crawl", metadata={"owner": "Search"})
    await producer.submit(square.map(range(4)), batch_id="two", name="prices", deadline=600)
    html = await text_of(client, "/")
    assert html.index("/batches/two") < html.index("/batches/one")
    assert "deadline in" in html
    for query, found in (
        ("nightly", ["one"]),
        ("TWO", ["two"]),
        ("search crawl", ["one"]),
        ("x", []),
        ("", ["two", "one"]),
    ):
        html = await text_of(client, f"/?q={query}")
        assert re.findall(r'href="/batches/(\w+)"', html) == found


async def test_batches_come_by_the_page_also_those_of_a_search(client: httpx.AsyncClient, producer: Producer) -> None:
    for number in range(60):
        await producer.submit([], batch_id=f"b{number}", name="odd" if number % 2 else "even")
    pages = [re.findall(r'href="/batches/b(\d+)"', await text_of(client, f"/?page={page}")) for page in range(4)]
    assert [len(page) for page in pages] == [25, 25, 10, 0]
    assert [int(number) for page in pages for number in page] == list(range(59, -1, -1))
    odd = [re.findall(r'href="/batches/b(\d+)"', await text_of(client, f"/?q=odd&page={page}")) for page in range(2)]
    assert [int(number) for page in odd for number in page] == list(range(59, 0, -2))


@pytest.mark.parametrize("query", ["page=-1", "page=x", "page=99999999999999999999", "q=%00%ff", "show=%27%22"])
async def test_nonsense_in_a_query_is_no_error(client: httpx.AsyncClient, producer: Producer, query: str) -> None:
    await producer.submit(square.map(range(3)), batch_id="b")
    await text_of(client, f"/?{query}")
    await text_of(client, f"/batches/b?{query}")


# ---- a batch


async def test_batch_tells_counts_causes_and_failures_by_kind(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker
) -> None:
    jobs = [
        *fetch_number.map(range(300)),
        *(fail_with.spec(f"no user {number}") for number in range(5)),
        hang.spec(timeout=0.2),
    ]
    async with worker():
        batch = await producer.submit(jobs, name="mixed")
        await batch.wait()
    html = await text_of(client, f"/batches/{batch.id}")
    text = plain(html)
    for said in (
        "100 %",
        "300 succeeded",
        "1 timed out",
        "5 failed",
        "while running, cancelled",
        "ValueError",
    ):
        assert said in text
    assert "no user #" in text
    assert "Traceback" in text
    assert "306 jobs: 300 succeeded, 1 timed out, 5 failed" in html
    assert 'class="timeout shade' in html


async def test_table_is_filtered_and_paged(client: httpx.AsyncClient, producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([*fetch_number.map(range(60)), *(fail_with.spec(f"no {n}") for n in range(3))])
        await batch.wait()

    async def shown(query: str) -> list[int]:
        html = await text_of(client, f"/batches/{batch.id}?{query}")
        table = html[html.index('<table class="results') :] if '<table class="results' in html else ""
        return [int(index) for index in re.findall(r'/jobs/(\d+)"', table)]

    pages = [await shown(f"page={page}") for page in range(3)]
    assert [len(page) for page in pages] == [25, 25, 13]
    assert sorted(index for page in pages for index in page) == list(range(63))
    assert await shown("page=99") == pages[2]
    assert sorted(await shown("show=failure")) == [60, 61, 62]
    assert await shown("show=lost") == []
    assert len(await shown("show=slowest")) == 10
    html = await text_of(client, f"/batches/{batch.id}")
    [group] = re.findall(r'id="group-(\w+)"', html)
    assert sorted(await shown(f"show={group}")) == [60, 61, 62]


async def test_batch_names_the_jobs_that_hold_it_up(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker() as one:
        batch = await producer.submit([*fetch_number.map(range(40)), wait_with_a_note.spec(door, "page 4 of 10")])
        text = await until_said(client, f"/batches/{batch.id}", "page 4 of 10")
        assert "40 % page 4 of 10" in text
        assert one.crew.worker_id in text
        job = plain(await text_of(client, f"/batches/{batch.id}/jobs/40"))
        assert "running" in job
        assert "page 4 of 10" in job
        floor = plain(await text_of(client, "/workers"))
        assert "page 4 of 10" in floor
        door.touch()


async def test_batch_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    assert "nobody" in await text_of(client, "/batches/nobody", 404)
    await text_of(client, "/batches/nobody/jobs/1", 404)
    await text_of(client, "/nowhere", 404)


async def test_batch_that_is_gone_is_found_no_longer(client: httpx.AsyncClient, producer: Producer, redis: Any) -> None:
    await producer.submit(square.map(range(3)), batch_id="b")
    await text_of(client, "/batches/b")
    redis.flushall()
    await until_said(client, "/batches/b", "No such batch")


async def test_another_batch_of_the_same_id_is_counted_anew(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker, redis: Any
) -> None:
    for count in (9, 4):
        async with worker():
            await (await producer.submit(square.map(range(count)), batch_id="b")).wait()
        await until_said(client, "/batches/b", f"succeeded {count}")
        redis.flushall()


async def test_stream_that_is_not_ours_is_said(client: httpx.AsyncClient, producer: Producer, redis: Any) -> None:
    await producer.submit(square.map(range(3)), batch_id="b")
    redis.set(keys.results("b"), "nonsense", ex=60)
    await until_said(client, "/batches/b", "cannot be read")


async def test_header_that_is_not_ours_is_an_error_that_names_it(client: httpx.AsyncClient, redis: Any) -> None:
    redis.set(keys.batch("b"), "nonsense", ex=60)
    assert keys.batch("b") in await text_of(client, "/batches/b", 500)


# ---- a job


async def test_job_tells_its_value_arguments_and_times(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([fetch_number.spec(number, key=f"user-{number}") for number in range(5)])
        await batch.wait()
        failed = await producer.submit([fail_with.spec("broken pipe")])
        await failed.wait()
    text = plain(await text_of(client, f"/batches/{batch.id}/jobs/3"))
    for said in (
        "user-3",
        "succeeded",
        "Value 3",
        "submitted",
        "attempt 1 started on",
        "result recorded",
        "No longer kept",
    ):
        assert said in text
    text = plain(await text_of(client, f"/batches/{failed.id}/jobs/0"))
    for said in ("failed", "broken pipe", "Traceback", "by name", "message"):
        assert said in text
    await text_of(client, f"/batches/{batch.id}/jobs/x", 404)


async def test_job_is_found_by_number_and_by_key(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        batch = await producer.submit([fetch_number.spec(number, key=f"user/{number}") for number in range(15)])
        await batch.wait()
    await text_of(client, f"/batches/{batch.id}")

    async def found(wanted: str) -> str:
        response = await client.get(f"/batches/{batch.id}/find", params={"job": wanted})
        return str(response.headers.get("location", response.status_code)).rpartition("/")[2]

    assert await found("user/1") == "1"
    assert await found("USER/13") == "13"
    assert await found("SER/12") == "12"
    assert await found(" 4 ") == "4"
    assert await found("#2") == "2"
    assert await found("15") == "404"
    assert await found("") == "404"
    missed = await text_of(client, f"/batches/{batch.id}/find?job=<nobody>", 404)
    assert "Searched: the keys of 15 of 15 results." in missed


async def test_part_of_a_key_shows_the_jobs_that_have_it(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker, door: Path
) -> None:
    done = [fetch_number.spec(number, key=f"user/{number} & co") for number in range(60)]
    running = wait_with_a_note.spec(door, "here").model_copy(update={"key": "user/x & co"})
    async with worker():
        batch = await producer.submit([*done, running])
        await until_said(client, f"/batches/{batch.id}", "here")
        at = (await client.get(f"/batches/{batch.id}/find", params={"job": "& CO"})).headers["location"]
        html = await text_of(client, at)
        assert len(re.findall(r"/jobs/", html[html.index('<table class="results') :])) == 25
        text = plain(html)
        assert "key has “&amp; CO”" in text
        assert "user/x &amp; co" in text[text.index("Running:") :]
        searched = (
            "Searched: the keys of 60 of 60 results and of the jobs that have run for a second; not those of the 0 that"
        )
        assert searched in text
        html = await text_of(client, at.replace("#results", "&page=2#results"))
        assert len(re.findall(r"/jobs/", html[html.index('<table class="results') :])) == 10
        door.touch()


async def test_job_without_a_result_waits(client: httpx.AsyncClient, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(3)))
    text = plain(await text_of(client, f"/batches/{batch.id}/jobs/1"))
    assert "queued" in text
    assert "It has not started" in text
    assert "number" in text


async def test_arguments_are_found_in_whatever_chunk_they_stand(producer: Producer) -> None:
    jobs: list[JobSpec[Any]] = [JobSpec(function="f", args=(number,)) for number in range(3000)]
    batch = await producer.submit(jobs)
    for index in (0, 1, 255, 256, 1023, 2999):
        found = await read_job(producer.redis, batch.id, index)
        assert found is not None
        assert list(found.args) == [index]
    assert await read_job(producer.redis, batch.id, 3000) is None
    assert await read_job(producer.redis, "nobody", 0) is None


async def test_arguments_name_a_key_that_is_not_ours(producer: Producer, redis: Any) -> None:
    redis.set(keys.chunks("b"), "nonsense", ex=60)
    with pytest.raises(ProtocolError, match=keys.chunks("b")):
        await read_job(producer.redis, "b", 0)


# ---- workers and queues


async def test_floor_tells_workers_queues_and_what_waits(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker
) -> None:
    assert "No worker is alive" in await text_of(client, "/workers")
    async with worker(concurrency=2) as one:
        await producer.submit([hang.spec() for _ in range(9)])
        await until(lambda: one.crew.slots.used == 2)
        await one.crew.leases.beat()
        text = plain(await text_of(client, "/workers"))
    assert one.crew.worker_id in text
    assert "2 of 2" in text
    assert re.search(r"\d MiB", text)


async def test_a_queue_without_a_worker_is_pointed_at(client: httpx.AsyncClient, producer: Producer) -> None:
    await producer.submit(fetch_number.map(range(3)))
    html = await text_of(client, "/workers")
    assert '<span class="chip failure">none</span>' in html


# ---- what jobs say is text


async def test_no_value_of_a_job_is_ever_markup(
    client: httpx.AsyncClient, producer: Producer, worker: StartWorker
) -> None:
    jobs = [
        attack.spec(key=ATTACK), JobSpec(function="fail_with", args=(ATTACK,), key=f"'{ATTACK}"),
        JobSpec(function=ATTACK[:150], kwargs={ATTACK: [ATTACK]}),
    ]  # fmt: skip
    async with worker():
        batch = await producer.submit(jobs, name=ATTACK, metadata={ATTACK: ATTACK})
        await batch.cancel(reason=ATTACK)
        await batch.wait()
    paths = ["/", f"/?q={ATTACK}", f"/batches/{batch.id}", f"/batches/{batch.id}?show={ATTACK}", "/workers"]
    paths += [f"/batches/{batch.id}/jobs/{index}" for index in range(3)] + [f"/{ATTACK}", f"/batches/{ATTACK}"]
    for path in paths:
        html = (await client.get(path)).text
        assert "<script>" not in html
        assert "<img src=x" not in html
        assert not re.search(r"""=["'][^"'>]*onerror='""", html)


# ---- live change


async def take(look: Any, count: int) -> list[str]:
    taken: list[str] = []
    async for event in events(look, 0.01):
        taken.append(event)
        if len(taken) == count:
            break
    return taken


async def test_stream_sends_a_part_only_when_it_has_changed() -> None:
    texts = iter(["one", "one", "one", "two"])

    async def draw() -> str:
        return next(texts)

    async def look() -> list[Part]:
        return [Part("list", None, draw)]

    assert await take(look, 2) == [
        'event: parts\ndata: {"list": "one"}\n\n', 'event: parts\ndata: {"list": "two"}\n\n',
    ]  # fmt: skip


async def test_stream_draws_a_part_only_if_it_may_have_changed() -> None:
    drawn = 0

    async def draw() -> str:
        nonlocal drawn
        drawn += 1
        return str(drawn)

    async def look() -> list[Part]:
        return [Part("still", "same", draw), Part("paused", object(), draw, pause=60.0)]

    assert len(await take(look, 3)) == 3  # the first, and signs of life
    assert drawn == 2


async def test_stream_says_that_redis_is_away_and_ends_with_its_batch() -> None:
    errors = iter([TimeoutError(), ProtocolError("key", "nonsense"), BatchNotFoundError("b")])

    async def look() -> list[Part]:
        raise next(errors)

    told = [event async for event in events(look, 0.01)]
    assert [event.partition("\n")[0] for event in told] == ["event: away", "event: away", "event: gone"]
    assert "nonsense" in told[1]


async def test_live_pages_are_so_many_at_a_time(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.live._MOST_STREAMS", 0)
    assert "live already" in await text_of(client, "/live", 503)


# ---- metrics


async def test_prometheus_is_told_what_redis_knows(client: httpx.AsyncClient, producer: Producer) -> None:
    await producer.submit(square.map(range(7)))
    assert 'straggler_jobs_queued{queue="default"} 7.0' in await text_of(client, "/metrics")


async def test_metrics_without_their_extra_name_it(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.pages.find_spec", lambda name: None)
    assert "straggler[metrics]" in await text_of(client, "/metrics", 501)


# ---- Redis is away


async def test_page_says_so_when_redis_does_not_answer(
    client: httpx.AsyncClient, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("dashboard.app.PATIENCE", 0.05)
    monkeypatch.setattr("dashboard.catalogue.newest", never)
    html = await text_of(client, "/", 503)
    assert "Redis does not answer" in html
    assert 'http-equiv="refresh"' in html
