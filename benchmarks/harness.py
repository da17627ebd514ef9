"""What the benchmarks share: a Redis and workers of their own, how much to measure, and a line about the machine.

Every process that is started here ends with the one that started it, however that ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from benchmarks.figures import Answer
from straggler import Producer
from workers.vitals.endings import die_with_parent

HERE = Path(__file__).parent
JOBS = HERE / "jobs.py"

# A worker that has not said for so long that it is alive will not, s; likewise a server.
_LONGEST_START = 30.0
# One that was told to stop ends within its shutdown_wait and grace, s; past this it is killed.
_LONGEST_END = 20.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Args:
        size: `quick` shows only that everything works; `full` leaves nothing out.
    """

    size: Literal["quick", "normal", "full"] = "normal"

    def pick(self, quick: T, normal: T, full: T) -> T:
        """Choose by the size."""
        return {"quick": quick, "normal": normal, "full": full}[self.size]

    @property
    def runs(self) -> int:
        """How often each measurement is repeated, of which the median counts."""
        return self.pick(1, 5, 7)


Measure: TypeAlias = Callable[[Effort], Awaitable[Answer]]


@contextlib.contextmanager
def redis_server(*, tcp: bool = False) -> Iterator[str]:
    """Start a redis-server of its own, nothing on disk; yield its URL.

    Args:
        tcp: Listen on a loopback port, for clients that know no unix sockets.
    """
    with tempfile.TemporaryDirectory(prefix="straggler-bench-") as folder:
        path, port = Path(folder) / "redis.sock", free_port() if tcp else 0
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path)]
        words += ["--save", "", "--appendonly", "no", "--dir", folder]
        with start(words, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_until(path.exists, "redis-server does not start")
                yield f"redis://127.0.0.1:{port}" if tcp else f"unix://{path}"
            finally:
                server.terminate()


@contextlib.asynccontextmanager
async def workers(url: str, count: int, concurrency: int, **settings: str) -> AsyncIterator[list[int]]:
    """Start workers as people do, `straggler worker`, and wait until all have said that they are alive.

    Args:
        url: Their Redis.
        count: How many.
        concurrency: The slots of each.
        **settings: Further `STRAGGLER_*` variables.

    Yields:
        The process ids of their supervisors.
    """
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as log:
        try:
            started += [start_worker(url, concurrency, log.fileno(), **settings) for _ in range(count)]
            async with Producer(url) as producer:
                await _until_alive(producer, count, log)
            yield [process.pid for process in started]
        finally:
            for process in started:
                process.terminate()
            for process in started:
                end(process)


def start_worker(url: str, concurrency: int, log: int, **settings: str) -> subprocess.Popen[bytes]:
    """Start one worker; what it says goes to the file `log`."""
    words = [sys.executable, "-m", "straggler.cli", "worker", "--jobs", str(JOBS), "--concurrency", str(concurrency)]
    environment = {**os.environ, "STRAGGLER_REDIS_URL": url, "PYTHONPATH": str(HERE.parent), **settings}
    return start(words, env=environment, stderr=log)


def start(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that is killed when this one ends, however that ends; options as `subprocess.Popen`'s."""
    return subprocess.Popen(words, preexec_fn=die_with_parent, **options)  # noqa: PLW1509  # no threads are started here


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to stop, and kill it if it does not."""
    try:
        process.wait(_LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _until_alive(producer: Producer, count: int, log: Any) -> None:
    try:
        async with asyncio.timeout(_LONGEST_START):
            while len(await producer.workers()) < count:
                await asyncio.sleep(0.02)
    except TimeoutError:
        log.seek(0)
        raise RuntimeError(
            f"no {count} workers within {_LONGEST_START:g} s; they say:\n{log.read().decode()}"
        ) from None


async def in_own_process(module: str, *words: str, limit: float = 300) -> Any:
    """Run `python -m module words` to its end; returns the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words,
        cwd=HERE.parent, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(words)} ended with code {process.returncode}")
    return json.loads(output)


def free_port() -> int:
    """Find a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(is_true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _LONGEST_START
    while not is_true():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.01)


def machine() -> dict[str, Any]:
    """Tell on what this was measured."""
    server = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Redis": server.split()[2].removeprefix("v="),
        **{name: _version(name) for name in ("redis", "hiredis", "uvloop", "arq", "pydantic", "straggler")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def resident(pid: int) -> float:
    """Tell a process's resident memory, MiB."""
    return _memory(pid, "VmRSS:")


def peak(pid: int) -> float:
    """Tell the most resident memory that a process has had, MiB."""
    return _memory(pid, "VmHWM:")


def _memory(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(field)[2].split()[0]) / 1024


def main(measure: Measure) -> None:
    """Answer one question on the command line: print it for people, or write it to a file as JSON."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("quick", "normal", "full"), default="normal", help="how much to measure")
    parser.add_argument("--json", type=Path, help="write the answer to this file")
    args = parser.parse_args()
    answer = asyncio.run(_measured(measure, Effort(args.size)))
    if args.json:
        args.json.write_text(json.dumps(answer.to_dict()))
    else:
        said = ", ".join(f"{name} {value}" for name, value in machine().items())
        print(f"{answer.markdown()}\n{said}")


async def _measured(measure: Measure, effort: Effort) -> Answer:
    return await measure(effort)
