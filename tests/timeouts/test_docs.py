"""The examples of docs/timeouts.md do what the page says."""

from __future__ import annotations

from typing import Any

from protocol.settings import Settings
from straggler import embedded
from tests.examples import Example, untried
from tests.timeouts.rows import outcome

PAGES = ("timeouts",)


async def results(*specs: Any, **options: Any) -> list[Any]:
    async with embedded(Settings()) as producer:
        return list(await (await producer.submit(specs, **options)).results())


def test_every_example_is_tried_here() -> None:
    assert not untried(PAGES, __file__)


async def test_a_jobs_own_timeout_wins(example: Example) -> None:
    module = example("fetch")
    assert (module.job_of_its_own.timeout, module.fetch.timeout) == (1, 2)
    assert [result.value for result in await results(module.job_of_its_own)] == [3]


async def test_a_job_says_how_far_it_is(example: Example) -> None:
    [result] = await results(example("crawl").crawl.spec(3))
    assert result.value == 3


async def test_a_job_that_promised_to_be_heard(example: Example) -> None:
    function = example("follow").follow
    heard, silent = await results(function.spec([0.2] * 4), function.spec([0.0, 30.0]))
    assert heard.value == 4
    assert (silent.phase, silent.limit) == ("heartbeat", 0.5)


async def test_cleanup_in_finally(example: Example) -> None:
    [result] = await results(example("transfer").transfer.spec(1), timeout=0.1)
    assert outcome(result) == "timeout cancelled"


async def test_a_job_leaves_in_time(example: Example) -> None:
    [result] = await results(example("poll").poll.spec(), timeout=0.3)
    assert outcome(result) == "success"


async def test_a_shielded_section_is_not_torn_apart(example: Example) -> None:
    module = example("book")
    [result] = await results(module.book.spec(), timeout=0.02)
    assert outcome(result) == "timeout cancelled"
    assert module.ledger == ["debit", "credit"]


async def test_a_plain_function_with_limited_memory(example: Example) -> None:
    [result] = await results(example("resize").resize.spec(640))
    assert result.value == 320


async def test_a_thread_that_listens(example: Example) -> None:
    [result] = await results(example("count").count.spec([1, 2, 3]))
    assert result.value == 6
