"""What the benchmarks share: a Redis and workers of their own, medians, and a line about the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from straggler import Producer

HERE = Path(__file__).parent


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Start a redis-server on a socket of its own, nothing on disk; yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        words = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
            try:
                while not socket.exists():
                    time.sleep(0.01)
                yield f"unix://{socket}"
            finally:
                server.terminate()


@contextlib.asynccontextmanager
async def workers(url: str, jobs: Path, count: int, concurrency: int) -> AsyncIterator[None]:
    """Start worker processes and wait until all of them have said that they are alive."""
    words = [sys.executable, "-m", "straggler.cli", "worker", "--jobs", str(jobs), "--concurrency", str(concurrency)]
    environment = {**os.environ, "STRAGGLER_REDIS_URL": url, "PYTHONPATH": str(HERE.parent)}
    started = [subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        async with Producer(url) as producer:
            while len(await producer.workers()) < count:
                await asyncio.sleep(0.05)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def machine() -> dict[str, Any]:
    """Tell on what this was measured."""
    server = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "redis": server.split()[2].removeprefix("v="),
        "straggler": version("straggler") if _is_installed() else "checkout",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _is_installed() -> bool:
    with contextlib.suppress(Exception):
        return bool(version("straggler"))
    return False


def resident(pid: int) -> float:
    """Tell a process's resident memory, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / (1 << 20)


def median(values: list[float]) -> float:
    """Tell the middle of several measurements."""
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """Tell the value that `share` of the measurements do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(title: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table, and the same as one line of JSON."""
    print(f"## {title}\n")
    print(", ".join(f"{name} {value}" for name, value in {**machine(), **settings}.items()), end="\n\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |")
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    print()
    print(json.dumps({"title": title, "machine": machine(), "settings": settings, "rows": rows}))
