"""In a notebook: a batch shows itself, and results come under a progress bar that knows how many there will be."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from html.parser import HTMLParser
from operator import length_hint
from typing import Any

import pytest
from tqdm.asyncio import tqdm

from producer.producer import Producer
from producer.sized import SizedIterator
from protocol.batches import BatchStatus
from protocol.notebook import handle_html, status_html
from protocol.running import RunningJob
from straggler import sync
from tests.conftest import StartWorker
from tests.examples import blocks
from tests.jobs import square

EVIL = "<script>alert(1)</script>&\"'"


class Reader(HTMLParser):
    """Read HTML: its text, and that each tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", set[str](), list[str]()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def status(**fields: Any) -> BatchStatus:
    about = {"batch_id": "b1", "queue": "q", "total": 1000, "closed": True, "created_at": 100.0}
    return BatchStatus(**{**about, **fields})


# ---- what they show


def test_status_shows_its_counts_and_the_slowest_jobs() -> None:
    slow = RunningJob(batch_id="b1", index=7, key="k7", function="f", started_at=1.0, limit=3.0, elapsed=2.5)
    seen = Reader(status(success=900, timeout=2, taken=950, slowest=(slow,), name="users")._repr_html_())
    assert "users b1 · 902 of 1,000 jobs done, in progress for " in seen.text
    for told in ("900 succeeded", "2 timed out", "48 running", "50 queued", "at work: k7, 2.5 s of 3.0 s"):
        assert told in seen.text
    assert "failed" not in seen.text
    assert "complete after 7.5 s" in Reader(status_html(status(finished_at=107.5))).text


def test_nothing_in_it_is_anything_but_text() -> None:
    slow = RunningJob(batch_id="b1", index=7, key=EVIL, function="f", started_at=1.0, limit=3.0, elapsed=2.5)
    for html in (status_html(status(name=EVIL, slowest=(slow,))), handle_html(EVIL, "b", "q")):
        seen = Reader(html)
        assert seen.tags <= {"div", "span", "b", "code"}
        assert EVIL in seen.text


def test_batch_without_jobs_shows_that() -> None:
    assert "no jobs" in Reader(status_html(status(total=0))).text


async def test_batch_shows_what_was_seen_of_it_last(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit(square.map(range(3)), name="squares")
    assert "await batch.status() tells how far it is" in Reader(batch._repr_html_()).text
    async with worker():
        await batch.results()
    await batch.status()
    assert "squares" in Reader(batch._repr_html_()).text
    assert "3 of 3 jobs done, complete after" in Reader(batch._repr_html_()).text


# ---- under a progress bar


async def test_progress_bar_knows_how_many_results_will_come(producer: Producer, worker: StartWorker) -> None:
    batch = await producer.submit(square.map(range(5)))
    screen = io.StringIO()
    async with worker():
        bar = tqdm(batch.as_completed(), file=screen, mininterval=0)
        assert bar.total == 5
        assert sorted([result.value async for result in bar if result.status == "success"]) == [0, 1, 4, 9, 16]
    assert "5/5" in screen.getvalue()


async def test_attached_batch_knows_it_too_and_one_in_the_middle_does_not(
    producer: Producer, worker: StartWorker
) -> None:
    batch = await producer.submit(square.map(range(5)))
    again = await producer.attach(batch.id)
    assert len(again.as_completed()) == length_hint(again.as_completed()) == 5
    async with worker():
        async with aclosing(again.as_completed()) as results:
            await anext(aiter(results))
        with pytest.raises(TypeError, match="not known"):
            len(again.as_completed())
        assert len([result async for result in again.as_completed()]) == 4


async def test_open_batch_has_no_length_but_is_true(producer: Producer) -> None:
    batch = await producer.open_batch()
    results = batch.as_completed()
    assert results
    assert length_hint(results, 77) == 77
    with pytest.raises(TypeError):
        len(results)
    await batch.close()
    await batch.status()
    assert len(batch.as_completed()) == 0


async def test_iterator_is_its_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    made: SizedIterator[int] = SizedIterator(numbers(), 3)  # type: ignore[arg-type]  # it is one
    assert await anext(made) == 0
    assert [number async for number in made] == [1, 2]
    await made.aclose()


def test_progress_bar_of_a_script_without_asyncio_knows_it_too() -> None:
    with sync.embedded() as producer:
        batch = producer.submit(square.map(range(5)))
        results = batch.as_completed()
        assert len(results) == length_hint(results) == 5
        assert "<b>" in batch._repr_html_()
        assert sorted(result.unwrap() for result in results) == [0, 1, 4, 9, 16]
        with pytest.raises(TypeError):
            len(batch.as_completed())


def test_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = [block for block in blocks(["watching"]) if "tqdm" in block]
    scope: dict[str, Any] = {"square": square}
    body = "".join(f"    {line}\n" for line in example.splitlines())
    exec(f"async def main(producer):\n{body}    return found", scope)  # noqa: S102  # the page's own

    async def run() -> Any:
        from straggler import embedded  # noqa: PLC0415

        async with embedded() as producer:
            return await scope["main"](producer)

    assert sorted(asyncio.run(run())) == [number * number for number in range(1000)]
