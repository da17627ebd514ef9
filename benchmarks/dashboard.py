"""What the dashboard costs: its pages on a batch of 1,000,000 results, and a running batch while its page is open.

    python -m benchmarks.dashboard [--size quick|normal|full]

Redis' time is what its own `INFO commandstats` counts while a page is loaded, what is read in the background meanwhile
included. Who looks at the running batch reads its live stream, as a browser does. With and without run in turn, the
order swapped each time; the ratio is the median of the pairs'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figures import Answer, median, median_ratio
from benchmarks.harness import HERE, Effort, end, main, redis_server, resident, start, workers
from benchmarks.jobs import noop
from straggler import Producer

WORKERS = 2
CONCURRENCY = 256
BATCH = "measured"
# What we ask Redis about itself is no cost of the dashboard's.
_ASKING = re.compile("cmdstat_(info|config|slowlog)")


@contextlib.contextmanager
def dashboard(url: str) -> Iterator[tuple[str, int]]:
    """Start a dashboard; yield its address and process id."""
    words = [sys.executable, "-m", "straggler.cli", "dashboard", "--redis", url, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = start(words, env=environment, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        [address] = re.findall(r"http://\S+(?=/)", process.stderr.readline().decode())
        yield address, process.pid
    finally:
        process.terminate()
        end(process)
        if process.stderr is not None:
            process.stderr.close()


@contextlib.contextmanager
def viewer(address: str, batch_id: str) -> Iterator[None]:
    """Keep a batch's page open: read its live stream from when the batch is there."""
    again = ["--retry", "100", "--retry-delay", "1", "--retry-all-errors"]
    process = start(["curl", "-sfN", *again, "-o", os.devnull, f"{address}/batches/{batch_id}/live"])
    try:
        yield
    finally:
        process.kill()
        end(process)


def computed(pid: int) -> float:
    """Tell how long a process and what it has started have computed, s; what has ended counts no more."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, own[11:13])) / os.sysconf("SC_CLK_TCK") + sum(computed(int(child)) for child in started)


async def redis_ms(producer: Producer) -> tuple[float, float]:
    """Tell how long Redis has worked since this was asked last, and on its longest command, ms."""
    stats: dict[str, dict[str, float]] = await producer.redis.info("commandstats")
    entries = await producer.redis.slowlog_get(2000)
    await producer.redis.config_resetstat()
    await producer.redis.slowlog_reset()
    spent = sum(stat["usec"] for name, stat in stats.items() if not _ASKING.match(name))
    asked = (b"INFO", b"CONFIG", b"SLOWLOG")
    longest = max((entry["duration"] for entry in entries if not entry["command"].startswith(asked)), default=0)
    return spent / 1000, longest / 1000


async def open_page(client: httpx.AsyncClient, producer: Producer, name: str, path: str) -> dict[str, Any]:
    """Load a page, and tell what it took."""
    await redis_ms(producer)
    started = time.perf_counter()
    response = await client.get(path)
    took = (time.perf_counter() - started) * 1000
    if response.status_code not in (200, 303):
        raise RuntimeError(f"{path} answers {response.status_code}")
    spent, longest = await redis_ms(producer)
    return {
        "page": name,
        "ms": took,
        "Redis ms": spent,
        "longest command ms": longest,
        "kB": len(response.content) / 1e3,
    }


async def until_read(client: httpx.AsyncClient, path: str) -> float:
    """Wait until the dashboard knows all results; returns how long that took, s."""
    started = time.perf_counter()
    while "results so far" in (await client.get(path)).text:
        await asyncio.sleep(1.0)
    return time.perf_counter() - started


async def pages(url: str, producer: Producer, count: int) -> tuple[list[dict[str, Any]], str]:
    """Measure pages on a batch of so many results, first and again when all of them are known."""
    await producer.redis.config_set("slowlog-log-slower-than", 0)
    path, rows = f"/batches/{BATCH}", []
    with dashboard(url) as (address, pid):
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            await client.get("/workers")  # imports and connections are made
            rows.append(await open_page(client, producer, "the batch, seen for the first time", path))
            took = await until_read(client, path)
            spent, longest = await redis_ms(producer)
            note = (
                f"All {count:,} results were read within {took:.0f} s, {computed(pid):.0f} s of a core; it cost Redis "
                f"{spent:.0f} ms in all, {longest:.2f} ms at a time. The dashboard then took {resident(pid):.0f} MiB."
            )
            further = {
                "the batch": path, "its slowest": f"{path}?show=slowest",
                "the middle of its table": f"{path}?page={count // 50}", "a job": f"{path}/jobs/{count // 2}",
                "a job by its number": f"{path}/find?job={count // 3}", "batches": "/",
                "batches, searched": "/?q=measured", "workers and queues": "/workers",
            }  # fmt: skip
            rows += [await open_page(client, producer, name, at) for name, at in further.items()]
    await producer.redis.config_set("slowlog-log-slower-than", 10_000)
    return rows, note


async def run(producer: Producer, batch_id: str, count: int) -> float:
    """Run a batch of no-ops and collect it; returns how long it took, s."""
    started = time.perf_counter()
    batch = await producer.submit(noop.map(range(count)), batch_id=batch_id)
    number = 0
    async for _ in batch.as_completed():
        number += 1
    took = time.perf_counter() - started
    if number != count:
        raise RuntimeError(f"{number} of {count} results")
    await batch.delete()
    await asyncio.sleep(0.5)
    return took


async def watched(url: str, producer: Producer, batch_id: str, count: int) -> tuple[float, float, float]:
    """Run a batch while its page is open; returns how long it took, s, and the dashboard's share of a core and of all.

    All is what everybody has computed: Redis, workers, producer, dashboard and who looks.
    """
    with dashboard(url) as (address, pid), viewer(address, batch_id):
        before, all_before, started = computed(pid), computed(os.getpid()), time.perf_counter()
        took = await run(producer, batch_id, count)
        spent = computed(pid) - before
        return took, spent / (time.perf_counter() - started), spent / (computed(os.getpid()) - all_before)


async def side_by_side(url: str, producer: Producer, count: int, runs: int) -> dict[str, float]:
    """Run batches with and without their page open."""
    with_page, without, of_a_core, of_all = [], [], [], []
    await run(producer, "warm-up", count // 4)
    for number in range(runs):
        if number % 2:
            without.append(await run(producer, f"plain-{number}", count))
        took, core, share = await watched(url, producer, f"watched-{number}", count)
        with_page.append(took)
        of_a_core.append(core)
        of_all.append(share)
        if number % 2 == 0:
            without.append(await run(producer, f"plain-{number}", count))
    return {
        "throughput with the page open": median_ratio(without, with_page),
        "jobs/s with the page open": count / median(with_page),
        "jobs/s without": count / median(without),
        "share of a core": median(of_a_core),
        "share of all": median(of_all),
    }


async def measure(effort: Effort) -> Answer:
    """Measure both."""
    results, jobs = effort.pick(5_000, 1_000_000, 1_000_000), effort.pick(2_000, 300_000, 1_000_000)
    with redis_server() as url:
        async with Producer(url) as producer:
            async with workers(url, WORKERS, CONCURRENCY):
                figures = await side_by_side(url, producer, jobs, effort.runs)
                batch = await producer.submit(noop.map(range(results)), batch_id=BATCH)
                while not (await batch.status()).complete:
                    await asyncio.sleep(0.2)
            rows, note = await pages(url, producer, results)
    figures["page ms"] = max(row["ms"] for row in rows[1:])
    figures["Redis ms a page"] = max(row["Redis ms"] for row in rows)
    settings = {"results": f"{results:,}", "jobs a run": f"{jobs:,}", "pairs of runs": effort.runs, "workers": WORKERS}
    shown = [{name: cell if isinstance(cell, str) else f"{cell:.2f}" for name, cell in row.items()} for row in rows]
    told = {name: f"{number:,.0f}" if number > 10 else f"{number:.3f}" for name, number in figures.items()}
    beside = (
        f"With the page of the running batch open, {told['jobs/s with the page open']} jobs/s; without a dashboard, "
        f"{told['jobs/s without']}: {told['throughput with the page open']} of it. The dashboard took "
        f"{told['share of a core']} of a core, {told['share of all']} of all that was computed."
    )
    return Answer("The dashboard", {**settings, "concurrency": CONCURRENCY}, shown, figures, notes=[note, beside])


if __name__ == "__main__":
    main(measure)
