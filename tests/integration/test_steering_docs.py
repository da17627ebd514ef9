"""The examples of docs/steering.md do what the page says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.settings import Settings
from straggler import embedded
from tests.conftest import ROOT, until_running
from tests.jobs import fail, hang, nap, square
from workers import registry

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "steering.md").read_text(), re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the example that defines a name, as a module of its own."""
    before = dict(registry._jobs)
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(name: str) -> ModuleType:
        [text] = [block for block in BLOCKS if re.search(rf"def {name}\(", block)]
        path = tmp_path / f"steering_example_of_{name}.py"
        path.write_text(text)
        return importlib.import_module(path.stem)

    yield load
    registry._jobs.clear()
    registry._jobs.update(before)


def test_every_example_is_tried_here() -> None:
    tried = Path(__file__).read_text()
    for block in BLOCKS:
        assert any(f'example("{name}")' in tried for name in re.findall(r"def (\w+)\(", block)), block


async def test_a_loop_over_results_adds_jobs(example: Any) -> None:
    async with embedded(Settings()) as producer:
        assert await example("divide_all").divide_all(producer, 4) == 1 + 2 + 4


async def test_a_crawl_finds_each_page_once_and_once_more_the_same(example: Any) -> None:
    module = example("crawl")
    async with embedded(Settings()) as producer:
        for _ in range(2):
            assert sorted(await module.crawl(producer, "/")) == sorted(module.LINKS)


async def test_a_plain_job_adds(example: Any) -> None:
    module = example("split")
    async with embedded(Settings()) as producer:
        batch = await producer.open_batch()
        await batch.add(module.split.spec(3))
        await batch.close(when_idle=True)
        assert sorted(await batch.gather()) == [1, 1, 1, 2, 3]


async def test_waits_go_on_among_what_is_left(example: Any) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit(nap.map([0.3, 0.0, 0.15]))
        assert await example("in_order_of_completion").in_order_of_completion(batch) == [1, 2, 0]


async def test_a_batch_gets_more_time(example: Any) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit(nap.map([1.0]), deadline=0.8)
        await until_running(batch, 1)
        await example("give_more_time").give_more_time(batch)
        assert await batch.gather() == [1.0]


async def test_the_rest_is_cancelled_after_the_first(example: Any) -> None:
    async with embedded(Settings()) as producer:
        batch: Any = await producer.submit([hang.spec(), square.spec(2), hang.spec()])
        assert await example("keep_the_first").keep_the_first(batch) == ["job 1 was first"] * 2


async def test_a_batch_stops_past_its_failures(example: Any) -> None:
    async with embedded(Settings(concurrency=1)) as producer:
        batch = await example("submit_carefully").submit_carefully(producer, [fail.spec("no")] * 600)
        await batch.wait()
        assert str((await batch.status()).stopped).startswith("max_failures 10: ")
