"""The examples of docs/steering.md do what the page says."""

from __future__ import annotations

from typing import Any

from protocol.settings import Settings
from straggler import embedded
from tests.conftest import until_running
from tests.examples import Example, untried
from tests.jobs import fail, hang, nap, square

PAGES = ("steering",)


def test_every_example_is_tried_here() -> None:
    assert not untried(PAGES, __file__)


async def test_a_loop_over_results_adds_jobs(example: Example) -> None:
    async with embedded(Settings()) as producer:
        assert await example("divide_all").divide_all(producer, 4) == 1 + 2 + 4


async def test_a_crawl_finds_each_page_once_and_once_more_the_same(example: Example) -> None:
    module = example("crawl")
    async with embedded(Settings()) as producer:
        for _ in range(2):
            assert sorted(await module.crawl(producer, "/")) == sorted(module.LINKS)


async def test_a_plain_job_adds(example: Example) -> None:
    module = example("split")
    async with embedded(Settings()) as producer:
        batch = await producer.open_batch()
        await batch.add(module.split.spec(3))
        await batch.close(when_idle=True)
        assert sorted(await batch.gather()) == [1, 1, 1, 2, 3]


async def test_waits_go_on_among_what_is_left(example: Example) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit(nap.map([0.3, 0.0, 0.15]))
        assert await example("in_order_of_completion").in_order_of_completion(batch) == [1, 2, 0]


async def test_a_batch_gets_more_time(example: Example) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit(nap.map([3.0]), deadline=2.5)
        await until_running(batch, 1)
        await example("give_more_time").give_more_time(batch)
        assert await batch.gather() == [3.0]


async def test_the_rest_is_cancelled_after_the_first(example: Example) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit([hang.spec(), square.spec(2), hang.spec()])
        assert await example("keep_the_first").keep_the_first(batch) == ["job 1 was first"] * 2


async def test_a_batch_stops_past_its_failures(example: Example) -> None:
    async with embedded(Settings(concurrency=1)) as producer:
        batch = await example("submit_carefully").submit_carefully(producer, [fail.spec("no")] * 600)
        await batch.wait()
        assert str((await batch.status()).stopped).startswith("max_failures 10: ")
