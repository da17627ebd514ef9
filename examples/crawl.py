"""Crawl a site: each page is a job that adds those it links to, each once; the batch ends by itself with the last.

    python examples/crawl.py                                  # a site of 5,000 pages, in this process, no Redis

Or with workers, on any number of machines (`straggler worker --jobs examples/crawl.py`):

    python examples/crawl.py --redis redis://localhost:6379 --batch-id crawl --start http://127.0.0.1:8080/0

Whatever dies meanwhile, the crawl goes on; this very command, given again, picks it up.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import aiohttp

from straggler import Producer, SuccessResult, current_job, embedded, job

LINK = re.compile(r'<a href="([^"]+)"')


@job(timeout=30, retries=2)
async def visit(url: str) -> list[str]:
    """Fetch a page, add the pages that it links to, and return their addresses."""
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as answer:
        links = [urljoin(url, link) for link in LINK.findall(await answer.text())]
    here = [link for link in links if link.startswith(urljoin(url, "/"))]
    await current_job().add([visit.spec(link, key=link) for link in here], unique=True)
    return here


async def crawl(producer: Producer, start: str, batch_id: str | None = None) -> dict[str, list[str]]:
    """Crawl a site; returns each page's links."""
    batch = await producer.open_batch(batch_id=batch_id, name=f"crawl of {start}")
    await batch.add(visit.spec(start, key=start), unique=True)
    await batch.close(when_idle=True)
    found: dict[str, list[str]] = {}
    async for result in batch.as_completed():
        match result:
            case SuccessResult(key=str(url), value=links):
                found[url] = links
            case _:
                print(f"{result.key}: {result.status}")
    return found


async def main() -> int:
    """Crawl, and say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", help="the first page; by default a site of our own is started")
    parser.add_argument("--pages", type=int, default=5000, help="how many pages a site of our own has")
    parser.add_argument("--redis", help="where workers are; by default the jobs run in this process")
    parser.add_argument("--batch-id", help="goes on with the crawl of that name, if there is one")
    given = parser.parse_args()
    with serve(given.pages) if given.start is None else as_is(given.start) as start:
        began = time.monotonic()
        async with Producer(given.redis) if given.redis else embedded() as producer:
            found = await crawl(producer, start, given.batch_id)
    links = sum(len(links) for links in found.values())
    print(f"{len(found):,} pages, {links:,} links between them, {time.monotonic() - began:.1f} s")
    return int(given.start is None and len(found) != given.pages)


@contextmanager
def serve(pages: int) -> Iterator[str]:
    """Run a site in a process of its own, which ends with its standard input, so with ours; yields its first page."""
    command = [sys.executable, str(Path(__file__).with_name("crawl_site.py")), str(pages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as site:  # noqa: S603  # our own
        assert site.stdin is not None  # noqa: S101  # both are pipes
        assert site.stdout is not None  # noqa: S101
        try:
            yield f"{site.stdout.readline().strip()}/0"
        finally:
            site.stdin.close()


@contextmanager
def as_is(start: str) -> Iterator[str]:
    """Crawl a site that is there."""
    yield start


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
