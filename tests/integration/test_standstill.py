"""A batch without Redis, in a process that is stopped for a while, or whose shell is closed: no job pays for it."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import Command
from tests.conftest import PATIENCE, ROOT

JOBS = """
import asyncio, time
from straggler import job

@job
async def standing_nap(number: int) -> int:
    with open("trace", "a") as file:
        file.write(f"{number}\\n")
    await asyncio.sleep(1.0)
    return number

@job
def standing_plain_nap(number: int) -> int:
    with open("trace", "a") as file:
        file.write(f"{number}\\n")
    time.sleep(1.0)
    return number

blocks = 0

def block() -> None:
    global blocks
    blocks += 1
    time.sleep(1.3)
    if blocks < 12:
        asyncio.get_running_loop().call_soon(block)

@job
async def block_in_callbacks(number: int) -> None:
    asyncio.get_running_loop().call_soon(block)
    try:
        await asyncio.Event().wait()
    finally:
        with open("trace", "w") as file:
            file.write(f"{blocks}\\n")
"""
JOBS_EACH = 12


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a jobs file and rows for it; leases are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAGGLER_LEASE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("jobs.py").write_text(JOBS)
    Path("numbers.txt").write_text("".join(f"{number}\n" for number in range(JOBS_EACH)))


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def wait_for(path: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(lines(path)) < count:
        assert time.monotonic() < deadline, f"{path} has {len(lines(path))} lines"
        time.sleep(0.01)


def is_waiting(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop is the platform's own, and clocks run on")
@pytest.mark.parametrize("name", ["standing_nap", "standing_plain_nap"])
def test_ctrl_z_for_longer_than_timeout_and_lease_costs_no_job_anything(name: str) -> None:
    options = ("--timeout", "4", "--concurrency", "4", "--out", "r.jsonl", "--json")
    pipe = subprocess.PIPE
    with Command("run", f"jobs.py:{name}", "numbers.txt", *options, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        wait_for("trace", 3)
        while not is_waiting(
            process.pid
        ):  # stopped in the midst of a job's code it would take that for the job's doing
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    results = [json.loads(line) for line in lines("r.jsonl")]
    assert collections.Counter((result["status"], result["attempt"]) for result in results) == {
        ("success", 1): JOBS_EACH
    }
    assert sorted(map(int, lines("trace"))) == list(range(JOBS_EACH)), "each has run once"
    assert "lost" not in said
    assert "Redis" not in said


def test_callbacks_that_hold_the_loop_again_and_again_are_no_standstill() -> None:
    Path("one.txt").write_text("1\n")
    options = ("--timeout", "3", "--grace", "1", "--out", "r.jsonl")
    pipe = subprocess.PIPE
    with Command("run", "jobs.py:block_in_callbacks", "one.txt", *options, stdin=pipe, stdout=pipe, stderr=pipe) as run:
        _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 3, said
    assert [json.loads(line)["status"] for line in lines("r.jsonl")] == ["timeout"]
    assert int(lines("trace")[0]) < 8, "stopped in the midst of them"


def test_who_started_it_may_end() -> None:
    words = f"{sys.executable} -m straggler.cli run jobs.py:standing_nap numbers.txt --concurrency 4 --out r.jsonl"
    shell = f"{words} >said 2>&1 & while ! [ -s r.jsonl ]; do sleep 0.05; done; echo $!"
    started = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert len(lines("r.jsonl")) < JOBS_EACH
    wait_for("r.jsonl", JOBS_EACH)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{started.stdout.strip()}").exists():
        assert time.monotonic() < deadline, Path("said").read_text()
        time.sleep(0.01)
    assert "supervisor" not in Path("said").read_text()
