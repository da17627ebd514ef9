"""Run one peer: its workers and its producer, in its own environment, on a Redis of its own; end all of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.harness import Effort, redis_server, start
from benchmarks.peers.catalogue import STRAGGLER, Peer
from benchmarks.peers.environments import ROOT, NotInstalledError, ready
from workers.vitals.endings import die_with_parent, kill_session

# Told to stop, a peer's workers have this long, s; then all of their session is killed.
_LONGEST_END = 5.0
# Beyond the time that its producer gives itself, s: the start of its workers, a last batch that is slow.
_SLACK = 240.0


@dataclass(slots=True)
class Found:
    """What one peer did.

    Args:
        batches: How long each batch took, s.
        lone: How long each lone job took, s.
        problem: Why there are no figures; empty if there are.
    """

    batches: list[float]
    lone: list[float]
    problem: str = ""


async def measured(peer: Peer, jobs: int, effort: Effort) -> Found:
    """Measure one peer; a problem of its own is told in the result and raises nothing."""
    try:
        python = Path(sys.executable) if peer is STRAGGLER else await asyncio.to_thread(ready, peer.name)
        with redis_server(tcp=True) as url, tempfile.TemporaryFile() as log, _workers(peer, python, url, log) as alive:
            return await _produced_while(alive, log, _produced(peer, python, url, jobs, effort))
    except NotInstalledError as error:
        return Found([], [], str(error))
    except (RuntimeError, OSError, ValueError, TimeoutError) as error:
        return Found([], [], f"did not run: {str(error) or type(error).__name__}")


@contextlib.contextmanager
def _workers(peer: Peer, python: Path, url: str, log: IO[bytes]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a peer's workers, each command in a session of its own, so that whatever it starts ends with it."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in peer.workers:
            words = shlex.split(command.format(python=python, bin=python.parent, url=url))
            options = {"cwd": ROOT, "env": _environment(url), "stdout": log, "stderr": log, "start_new_session": True}
            started.append(start(words, **options))
        yield started
    finally:
        for process in started:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LONGEST_END)
    kill_session(process.pid)
    process.wait()


async def _produced_while(
    workers: list[subprocess.Popen[bytes]], log: IO[bytes], producing: Coroutine[Any, Any, Found]
) -> Found:
    """Wait for the producer, but no longer than its workers live: without them it would wait in vain."""
    producer = asyncio.create_task(producing)
    while not producer.done() and all(worker.poll() is None for worker in workers):
        await asyncio.wait({producer}, timeout=0.5)
    if producer.done():
        return producer.result()
    producer.cancel()
    await asyncio.wait({producer})
    log.seek(0)
    raise RuntimeError(f"a worker ended: {_last_line(log.read())}")


async def _produced(peer: Peer, python: Path, url: str, jobs: int, effort: Effort) -> Found:
    seconds, lone = effort.pick(5.0, 20.0, 200.0), effort.pick(20, 200, 500)
    words = ["-m", "benchmarks.peers.client", peer.adapter, "--jobs", str(jobs), "--runs", str(effort.runs)]
    words += ["--lone", str(lone), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        str(python), *words, cwd=ROOT, env=_environment(url), start_new_session=True, preexec_fn=die_with_parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds + _SLACK):
            output, said = await process.communicate()
    except TimeoutError:
        raise TimeoutError(f"not at its end after {seconds + _SLACK:g} s") from None
    finally:
        if process.returncode is None:
            kill_session(process.pid)
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(_last_line(said) or f"exit code {process.returncode}")
    return Found(**json.loads(output))


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, "BENCH_REDIS_URL": url, "STRAGGLER_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
