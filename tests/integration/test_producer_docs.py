"""The examples of docs/redrive.md and docs/sync.md do what the pages say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from protocol.settings import Settings
from straggler import embedded, job
from tests.conftest import StartProcess
from tests.examples import Example, untried
from tests.jobs import square

PAGES = ("redrive", "sync")


def test_every_example_is_tried_here() -> None:
    assert not untried(PAGES, __file__)


async def test_redrive_with_a_longer_timeout(example: Example, tmp_path: Path) -> None:
    @job
    async def hang_once(path: Path) -> None:
        if not path.exists():
            path.touch()
            await asyncio.Event().wait()

    async with embedded(Settings()) as producer:
        await producer.submit(
            [*square.map(range(3)), hang_once.spec(tmp_path / "x", timeout=0.1)], batch_id="b", grace=0
        )
        assert await example("collect_all").collect_all(producer, "b") == ["success"] * 4


async def test_report_of_a_complete_batch(example: Example) -> None:
    async with embedded(Settings()) as producer:
        batch = await example("announce").begin(producer)
        await batch.results()
        callback = await producer.attach("nightly.done")
        assert await callback.gather() == ["#ops: nightly is done, 100 of 100 succeeded"]
        assert (await batch.status()).callback == callback.id


@pytest.mark.redis
def test_script_without_asyncio(example: Example, redis_url: str, worker_process: StartProcess) -> None:
    worker_process()
    assert example("total").total(redis_url) == sum(number**2 for number in range(1000))


def test_all_in_one_process_without_asyncio(example: Example) -> None:
    assert example("cubes").cubes() == [0, 1, 8, 27, 64]
