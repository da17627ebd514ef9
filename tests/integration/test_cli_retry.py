"""`straggler retry` as people and scripts meet it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from producer.producer import Producer
from tests.commands import straggler
from tests.conftest import ROOT, StartProcess
from tests.jobs import fail, square, wait_for_file

pytestmark = pytest.mark.redis

Say = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def say(redis_url: str, tmp_path: Path) -> Say:
    """Run a straggler command in a folder of the test's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("STRAGGLER_")}

    environment = {**own, "PYTHONPATH": str(ROOT)}
    return lambda *words: asyncio.to_thread(straggler, *words, "--redis", redis_url, cwd=tmp_path, env=environment)


async def ended_batch(producer: Producer, door: Path) -> None:
    jobs = [*square.map(range(5)), wait_for_file.spec(door), fail.spec("no"), fail.spec("never")]
    batch = await producer.submit(jobs, batch_id="b", timeout=0.2, grace=0)
    assert len(await batch.results()) == 8


async def test_retry_runs_again_what_timed_out_and_waits_for_it(
    producer: Producer, worker_process: StartProcess, say: Say, door: Path, tmp_path: Path
) -> None:
    worker_process()
    await ended_batch(producer, door)
    door.touch()
    ran = await say("retry", "b", "--timeout", "10", "--wait", "--out", "again.jsonl")
    assert ran.returncode == 0, ran.stderr
    again = ran.stdout.strip()
    [row] = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert (row["job_id"], row["status"]) == (f"{again}:0", "success")
    told = await say("status", again)
    assert re.search(r"^redrive of +b *$", told.stdout, re.MULTILINE)
    told = await say("status", "b")
    assert re.search(rf"^redriven in +{again} *$", told.stdout, re.MULTILINE)


async def test_lineage_is_collected_into_one_file(
    producer: Producer, worker_process: StartProcess, say: Say, door: Path, tmp_path: Path
) -> None:
    worker_process()
    await ended_batch(producer, door)
    door.touch()
    assert (await say("retry", "b", "--timeout", "10", "--wait", "--batch-id", "again")).returncode == 0
    ran = await say("collect", "again", "--lineage", "--out", "all.jsonl")
    assert ran.returncode == 3, ran.stderr
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(8))
    assert [row["status"] for row in rows] == ["success"] * 6 + ["failure"] * 2
    assert rows[5]["job_id"] == "again:0"
    ran = await say("collect", "b", "--lineage", "--json")
    told = json.loads(ran.stdout)
    assert (told["batch"], told["total"], told["failure"]) == ("b", 8, 2)
    assert (await say("collect", "b", "--lineage", "--cursor", "0-0")).returncode == 2
    assert (await say("collect", "gone", "--lineage")).returncode == 1


async def test_retry_of_several_kinds_ends_as_collect_does(
    producer: Producer, worker_process: StartProcess, say: Say, door: Path
) -> None:
    worker_process()
    await ended_batch(producer, door)
    ran = await say("retry", "b", "--only", "failure,cancelled", "--only", "lost", "--wait", "--batch-id", "again")
    assert ran.returncode == 3
    assert ran.stdout == "again\n"
    assert (await (await producer.attach("again")).status()).failure == 2
    words = ("--batch-id", "one", "--name", "x", "--heartbeat-timeout", "9", "--retry-on", "failure,timeout", "--wait")
    ran = await say("retry", "b", "--index", "6", *words)
    one = await producer.attach("one")
    assert (await one.status()).total == 1
    assert (one.options.name, one.options.heartbeat_timeout) == ("x", 9)
    assert one.options.retry_on == ("failure", "timeout")


async def test_retry_without_wait_prints_the_id_and_says_what_is_missing(
    producer: Producer, worker_process: StartProcess, say: Say, door: Path
) -> None:
    worker = worker_process()
    await ended_batch(producer, door)
    worker.terminate()
    worker.wait()
    ran = await say("retry", "b", "--batch-id", "again")
    assert (ran.returncode, ran.stdout) == (0, "again\n")
    assert "no worker is alive on queue 'default'" in ran.stderr
    ran = await say("retry", "b", "--only", "lost")
    assert ran.returncode == 0
    assert "nothing runs again: no job of batch b ended in what was asked for" in ran.stderr
    ran = await say("retry", "again")
    assert "batch again goes on: 1 of its jobs have no result yet" in ran.stderr


async def test_results_without_wait_are_wrong_usage(say: Say) -> None:
    ran = await say("retry", "b", "--out", "again.jsonl")
    assert ran.returncode == 2
    assert "only with --wait" in ran.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("b", "--only", "success"), "jobs of status 'success' cannot be redriven"),
        (("b", "--index", "x"), "--index x: a job's index"),
        (("b", "--timeout", "0"), "batch option timeout"),
        (("gone",), "no batch 'gone' in this Redis"),
    ],
)
async def test_what_cannot_be_is_said_in_one_line(
    producer: Producer, say: Say, words: tuple[str, ...], message: str
) -> None:
    await producer.submit(square.map([]), batch_id="b")
    ran = await say("retry", *words)
    assert ran.returncode == 1
    assert message in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert ran.stdout == ""
