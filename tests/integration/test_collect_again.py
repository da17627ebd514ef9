"""A collector that is killed, stopped or short of disk goes on with the same file: each result in it once."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.commands import Command, straggler
from tests.conftest import PATIENCE, ROOT, StartProcess

pytestmark = pytest.mark.redis

JOBS = """
import asyncio
from pathlib import Path
from pydantic import BaseModel
from straggler import job

class User(BaseModel):
    id: int
    name: str

@job
async def fetch(user_id: int) -> User:
    # So that a collector can be killed in the middle.
    while user_id >= 40 and not Path(__file__).with_name("door").exists():
        await asyncio.sleep(0.5)
    return User(id=user_id, name=f"user {user_id}")
"""
COUNT = 600
NAMES = ["r.jsonl", "r.csv", "r.parquet"]


@pytest.fixture(autouse=True)
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str, worker_process: StartProcess) -> str:
    """Work in a folder, on a batch of which all but 40 jobs wait for a door."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAGGLER_REDIS_URL", redis_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("jobs.py").write_text(JOBS)
    Path("ids.txt").write_text("".join(f"{number}\n" for number in range(COUNT)))
    worker_process(jobs=str(tmp_path / "jobs.py"), concurrency=700)
    assert straggler("submit", "fetch", "ids.txt", "--batch-id", "b").returncode == 0
    return "b"


def collect(name: str) -> subprocess.CompletedProcess[str]:
    return straggler("collect", "b", "--out", name, "--jobs", "jobs.py")


@contextmanager
def collecting(name: str) -> Iterator[Command]:
    """Start a collector; kill it in the end."""
    with Command("collect", "b", "--out", name, "--jobs", "jobs.py", stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def part(name: str) -> Path:
    return Path(f"{name}.partial" if name.endswith(".parquet") else name)


def wait_for_rows(name: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not part(name).exists() or part(name).read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def wait_for_mark(name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not Path(f"{part(name)}.cursor").exists():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def indexes(name: str) -> list[int]:
    return sorted(row["index"] for row in rows(name))


def rows(name: str) -> list[dict[str, Any]]:
    if name.endswith(".parquet"):
        found: list[dict[str, Any]] = pyarrow.parquet.read_table(name).to_pylist()
        return found
    if name.endswith(".csv"):
        with Path(name).open(newline="") as file:
            return [{**row, "index": int(row["index"])} for row in csv.DictReader(file)]
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_collector_that_is_killed_goes_on_without_a_row_twice(name: str) -> None:
    with collecting(name) as process:
        wait_for_rows(name, 40)
        wait_for_mark(name)
        Path("door").touch()
        wait_for_rows(name, 200)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    left = part(name).read_bytes()
    assert left.count(b"\n") >= 200, "what it had written is on disk"
    if name.endswith(".parquet"):
        assert not Path(name).exists(), "a parquet file is whole, or not there"
    part(name).write_bytes(left + b'{"index": 7, torn in the midd')

    done = collect(name)

    assert done.returncode == 0, done.stderr
    assert indexes(name) == list(range(COUNT))
    assert not list(Path().glob("r.*.*")), "nothing else is left"
    if not name.endswith(".jsonl"):
        assert {str(row["value.name"]) for row in rows(name)} == {f"user {number}" for number in range(COUNT)}


@pytest.mark.parametrize("name", NAMES)
def test_killed_again_and_again_it_ends_with_each_result_once(name: str) -> None:
    Path("door").touch()
    for _ in range(4):
        with collecting(name) as process:
            wait_for_rows(name, 1)
            wait_for_mark(name)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert collect(name).returncode == 0
    assert indexes(name) == list(range(COUNT))


def test_collector_that_is_stopped_goes_on_where_it_was() -> None:
    with collecting("r.jsonl") as process:
        wait_for_rows("r.jsonl", 40)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    first = Path("r.jsonl").read_text()
    Path("door").touch()
    assert collect("r.jsonl").returncode == 0
    assert Path("r.jsonl").read_text().startswith(first)
    assert indexes("r.jsonl") == list(range(COUNT))


def test_file_of_another_batch_is_begun_anew() -> None:
    with collecting("r.jsonl") as process:
        wait_for_rows("r.jsonl", 40)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    Path("few.txt").write_text("1\n2\n")
    assert straggler("submit", "fetch", "few.txt", "--batch-id", "few").returncode == 0
    assert straggler("collect", "few", "--out", "r.jsonl").returncode == 0
    assert indexes("r.jsonl") == [0, 1]
    assert not Path("r.jsonl.cursor").exists()


def test_file_that_was_cut_since_is_begun_anew() -> None:
    with collecting("r.jsonl") as process:
        wait_for_rows("r.jsonl", 40)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    Path("r.jsonl").write_text("")
    Path("door").touch()
    assert collect("r.jsonl").returncode == 0
    assert indexes("r.jsonl") == list(range(COUNT))


def test_second_collector_into_the_same_file_is_refused() -> None:
    with collecting("r.jsonl"):
        wait_for_rows("r.jsonl", 40)
        done = collect("r.jsonl")
    assert done.returncode == 1
    assert done.stderr == "error: another process is writing results to r.jsonl\n"
    assert indexes("r.jsonl") == list(range(40))


def test_batch_that_is_not_there_makes_no_file() -> None:
    assert straggler("collect", "nope", "--out", "n.parquet").returncode == 1
    assert not list(Path().glob("n.*"))
