"""The examples of docs/redrive.md and docs/sync.md do what the pages say."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.settings import Settings
from straggler import embedded, job
from tests.conftest import ROOT, StartProcess
from tests.jobs import square
from workers import registry

PAGES = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("redrive", "sync")]
BLOCKS = re.findall(r"```python\n(.*?)```", "".join(PAGES), re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the example that defines a name, as a module of its own."""
    before = dict(registry._jobs)
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(name: str) -> ModuleType:
        [text] = [block for block in BLOCKS if re.search(rf"def {name}\(", block)]
        path = tmp_path / f"producer_example_of_{name}.py"
        path.write_text(text)
        return importlib.import_module(path.stem)

    yield load
    registry._jobs.clear()
    registry._jobs.update(before)


def test_every_example_is_tried_here() -> None:
    tried = Path(__file__).read_text()
    for block in BLOCKS:
        assert any(f'example("{name}")' in tried for name in re.findall(r"def (\w+)\(", block)), block


async def test_redrive_with_a_longer_timeout(example: Any, tmp_path: Path) -> None:
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


async def test_report_of_a_complete_batch(example: Any) -> None:
    async with embedded(Settings()) as producer:
        batch = await example("announce").begin(producer)
        await batch.results()
        callback = await producer.attach("nightly.done")
        assert await callback.gather() == ["#ops: nightly is done, 100 of 100 succeeded"]
        assert (await batch.status()).callback == callback.id


@pytest.mark.redis
def test_script_without_asyncio(example: Any, redis_url: str, worker_process: StartProcess) -> None:
    worker_process()
    assert example("total").total(redis_url) == sum(number**2 for number in range(1000))


def test_all_in_one_process_without_asyncio(example: Any) -> None:
    assert example("cubes").cubes() == [0, 1, 8, 27, 64]
