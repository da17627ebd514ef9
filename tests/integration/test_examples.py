"""The examples on a real Redis: the very commands that the README shows, as processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from straggler import Batch, JobSpec, Producer
from tests.conftest import StartProcess

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
WORKER = ["straggler", "worker", "--jobs", "examples/jobs.py"]

pytestmark = pytest.mark.redis


def feed(redis_url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STRAGGLER_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "examples/feed.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_producer_script_is_at_most_30_lines() -> None:
    assert len((EXAMPLES / "feed.py").read_text().splitlines()) <= 30


def test_producer_script_ends_well_with_two_workers(redis_url: str, worker_process: StartProcess) -> None:
    workers = [worker_process(command=WORKER) for _ in range(2)]

    ran = feed(redis_url)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "/dev/zero was still running after 1 s\n" in ran.stdout
    assert "/dev/urandom was still running after 1 s\n" in ran.stdout
    assert "no_such_file.py failed: FileNotFoundError: " in ran.stdout
    assert "197 success" in ran.stdout.splitlines()[-1]
    for worker in workers:
        worker.terminate()
    assert [worker.wait() for worker in workers] == [0, 0]


def test_producer_script_fails_where_the_batch_ends_otherwise(redis_url: str, worker_process: StartProcess) -> None:
    worker_process(jobs="tests.jobs")  # has no job of that name
    ran = feed(redis_url)
    assert ran.returncode == 1
    assert "200 failure" in ran.stdout.splitlines()[-1]


async def test_jobs_count_and_hash_real_files(producer: Producer, worker_process: StartProcess) -> None:
    await asyncio.to_thread(worker_process, command=WORKER)
    batch: Batch[Any] = await producer.submit(
        [JobSpec(function=name, args=("abc.py",)) for name in ("count_lines", "sha256")]
    )
    size, digest = await batch.gather()
    content = Path(os.__file__).with_name("abc.py").read_bytes()
    expected: dict[str, Any] = {"lines": content.count(b"\n"), "bytes": len(content)}
    assert size == expected
    assert digest == hashlib.sha256(content).hexdigest()
