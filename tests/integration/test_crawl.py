"""The crawler: each page once, ends by itself, and finds the same whatever dies in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest

from producer.producer import Producer
from tests.conftest import ROOT, StartProcess, until

EXAMPLES = ROOT / "examples"
WORKER = ["straggler", "worker", "--jobs", "examples/crawl.py"]


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(address: str, pages: int) -> dict[str, list[str]]:
    """Say what each page links to."""
    links: Callable[[int, int], list[int]] = load("crawl_site").links
    return {f"{address}/{page}": [f"{address}/{linked}" for linked in links(page, pages)] for page in range(pages)}


@contextmanager
def site(pages: int, delay: float) -> Iterator[str]:
    command = [sys.executable, str(EXAMPLES / "crawl_site.py"), str(pages), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def crawl(redis_url: str, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / "crawl.py"), "--redis", redis_url, "--start", f"{address}/0"]
    return subprocess.Popen(
        [*command, "--batch-id", "crawl"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(("page", "linked"), [(0, [1, 2, 3, 0, 0, 1, 0]), (99, [49, 99, 81])])
def test_the_site_has_cycles_and_duplicates(page: int, linked: list[int]) -> None:
    assert load("crawl_site").links(page, 100) == linked


def test_the_crawler_finds_each_page_once_and_ends_by_itself() -> None:
    ran = subprocess.run(
        [sys.executable, "examples/crawl.py", "--pages", "150"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    links = sum(len(linked) for linked in expected("", 150).values())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"150 pages, {links} links between them")


@pytest.mark.redis
async def test_a_crash_of_workers_and_of_the_producer_changes_nothing_in_what_is_found(
    producer: Producer, redis_url: str, worker_process: StartProcess, redis: Any
) -> None:
    pages = 600
    short = {"lease": 1, "concurrency": 8}
    with site(pages, 0.02) as address:
        first = await asyncio.to_thread(worker_process, command=WORKER, **short)
        await asyncio.to_thread(worker_process, command=WORKER, **short)
        crawling = crawl(redis_url, address)
        try:
            await reached(redis, pages // 6)
            crawling.kill()  # the producer is gone, the crawl goes on
            await reached(redis, pages // 4)
            os.kill(pid_of_a_worker(redis), signal.SIGKILL)  # its supervisor starts another
            await reached(redis, pages // 2)
            first.kill()  # a whole machine
            await reached(redis, 2 * pages // 3)
        finally:
            crawling.kill()
            crawling.communicate()
        again = crawl(redis_url, address)
        told, problems = await asyncio.to_thread(again.communicate)
    assert (again.returncode, problems) == (0, "")
    assert told.startswith(f"{pages} pages, ")
    batch = await producer.attach("crawl")
    results = await batch.results()
    assert Counter(result.key for result in results) == dict.fromkeys(expected(address, pages), 1)
    assert {result.key: result.value_or([]) for result in results} == expected(address, pages)
    assert [result.index for result in results] == list(range(pages))


async def reached(redis: Any, count: int) -> None:
    """Wait until so many pages were visited."""
    await until(lambda: int(redis.hget("straggler:batch:crawl", "success") or 0) >= count)


def pid_of_a_worker(redis: Any) -> int:
    [name, *_] = redis.keys("straggler:worker:*")
    return int(redis.hget(name, "pid"))
