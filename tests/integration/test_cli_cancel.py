"""`straggler cancel` and `delete`, a second Ctrl-C, and `--max-failures`, as people and scripts meet them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.producer import Producer
from straggler import BatchNotFoundError, CancelledResult
from tests.commands import Command
from tests.conftest import PATIENCE, ROOT, StartProcess, StartWorker, until
from tests.jobs import nap, square

pytestmark = pytest.mark.redis


class CommandLine:
    """Start straggler commands that work with the test's Redis."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis_url = redis_url
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("STRAGGLER_")}
        process = Command(
            *words,
            cwd=self._folder, env={**own, "PYTHONPATH": str(ROOT), "STRAGGLER_REDIS_URL": self._redis_url},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command; tell its exit code, stdout and stderr."""
        process = self.start(*words)
        out, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        return process.returncode, out, said

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def command_line(redis_url: str, tmp_path: Path) -> Iterator[CommandLine]:
    made = CommandLine(redis_url, tmp_path)
    yield made
    made.close()


async def test_a_batch_is_cancelled(producer: Producer, command_line: CommandLine) -> None:
    batch = await producer.submit(square.map(range(1200)), batch_id="b")
    assert await command_line.run("cancel", "b", "--reason", "no use") == (0, "", "batch b: 1,200 jobs are cancelled\n")
    results = await batch.results()
    assert all(isinstance(result, CancelledResult) and result.reason == "no use" for result in results)
    _, out, _ = await command_line.run("status", "b")
    assert re.search(r"^stopped +no use *$", out, re.MULTILINE)
    code, out, said = await command_line.run("cancel", "b")
    assert (code, out, said) == (0, "", "batch b: nothing to cancel, all of its jobs have their results\n")


async def test_some_jobs_are_cancelled(producer: Producer, command_line: CommandLine) -> None:
    batch = await producer.submit(square.map(range(11)), batch_id="b")
    _, _, said = await command_line.run("cancel", "b", "--index", "10")
    assert said == "batch b: 1 job is cancelled\n"
    code, out, _ = await command_line.run("cancel", "b", "--index", "3,5", "--index", "7", "--json")
    assert (code, json.loads(out)) == (0, {"batch": "b", "cancelled": 3})
    assert (await batch.status()).queued == 7
    _, _, said = await command_line.run("cancel", "b", "--index", "3")
    assert said == "batch b: nothing to cancel, all of these jobs have their results\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cancel", "no"), "error: no batch 'no' in this Redis"),
        (("cancel", "b", "--index", "x"), "error: --index x: a job's index is its place in its batch, from 0"),
        (("cancel", "b", "--index", "10"), "error: batch 'b' has no job 10: its 10 jobs are 0 to 9"),
        (("submit", "square", "-", "--max-failures", "many"), "error: batch option max_failures: use a number of jobs"),
        (("submit", "square", "-", "--max-failures", "1.5"), "error: batch option max_failures: use a number of jobs"),
    ],
)
async def test_what_cannot_be_is_said_in_one_line(
    producer: Producer, command_line: CommandLine, words: tuple[str, ...], message: str
) -> None:
    batch = await producer.submit(square.map(range(10)), batch_id="b")
    code, out, said = await command_line.run(*words)
    assert (code, out, len(said.splitlines())) == (1, "", 1)
    assert said.startswith(message)
    assert (await batch.status()).queued == 10


async def test_a_batch_is_deleted(producer: Producer, command_line: CommandLine) -> None:
    await producer.submit(square.map(range(1200)), batch_id="b")
    assert await command_line.run("delete", "b") == (0, "", "batch b is deleted: 1,200 jobs, 0 results\n")
    with pytest.raises(BatchNotFoundError):
        await producer.attach("b")
    code, _, said = await command_line.run("delete", "b")
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("error: no batch 'b' in this Redis: it was never submitted here, was deleted, or ")


async def test_a_job_starts_when_the_batch_that_was_submitted_is_complete(
    producer: Producer, command_line: CommandLine, worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "numbers.txt").write_text("1\n2\n")
    words = ("submit", "square", "numbers.txt", "--batch-id", "b", "--on-complete", "tell_end")
    code, out, _ = await command_line.run(*words, "--jobs", "tests.jobs")
    assert (code, out) == (0, "b\n")
    async with worker():
        batch = await producer.attach("b")
        await batch.wait()
        last = await producer.attach(str((await batch.status()).callback))
        assert await last.gather() == ["b: 2 of 2"]


@pytest.mark.parametrize("is_submitted_by_it", [True, False])
async def test_a_second_ctrl_c_cancels_the_batch(
    producer: Producer,
    command_line: CommandLine,
    worker_process: StartProcess,
    tmp_path: Path,
    is_submitted_by_it: bool,
) -> None:
    await asyncio.to_thread(worker_process)
    (tmp_path / "times.txt").write_text("0\n" + "3600\n" * 5)
    if is_submitted_by_it:
        process = command_line.start("submit", "nap", "times.txt", "--wait", "--batch-id", "b", "--out", "r.jsonl")
    else:
        await producer.submit(nap.map([0.0] + [3600.0] * 5), batch_id="b")
        process = command_line.start("collect", "b", "--out", "r.jsonl")
    results = tmp_path / "r.jsonl"
    await until(lambda: results.exists() and results.read_text())
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    said = ""
    while "press Ctrl-C again" not in said:
        said = await asyncio.to_thread(process.stderr.readline)
        assert said, "it has left"
    process.send_signal(signal.SIGINT)
    _, rest = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode == 130
    assert "batch b is cancelled: 5 jobs had no result yet" in rest
    found = await (await producer.attach("b")).results()
    assert [result.reason for result in found if isinstance(result, CancelledResult)] == ["Ctrl-C"] * 5


async def test_one_ctrl_c_cancels_nothing(producer: Producer, command_line: CommandLine) -> None:
    batch = await producer.submit(square.map(range(5)), batch_id="b")
    process = command_line.start("collect", "b")
    assert process.stderr is not None
    assert "no worker is alive" in await asyncio.to_thread(process.stderr.readline)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert process.returncode == 130
    assert "batch b goes on; collect the rest with:\n  straggler collect b" in said
    assert (await batch.status()).queued == 5


async def test_a_run_with_too_many_failures_stops_early(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        "import time\nfrom straggler import job\n\n@job\nasync def fail_slowly(x: int) -> None:\n"
        "    time.sleep(0.002)\n    raise ValueError('no')\n"
    )
    (tmp_path / "ids.txt").write_text("".join(f"{number}\n" for number in range(600)))
    words = ("run", "jobs.py:fail_slowly", "ids.txt", "--max-failures", "0.1", "--concurrency", "1", "--out", "r.jsonl")
    code, _, said = await command_line.run(*words)
    assert code in (1, 3), said
    await until((tmp_path / "r.jsonl").exists)
    ends = Counter(json.loads(line)["status"] for line in (tmp_path / "r.jsonl").read_text().splitlines())
    assert set(ends) == {"failure", "cancelled"}
    assert 100 <= ends["failure"] < 500


async def test_extend_gives_a_batch_more_time(command_line: CommandLine, producer: Producer) -> None:
    await producer.submit(square.map(range(3)), batch_id="b", deadline=60)
    said = "batch b: its deadline is 90 s from now\n"
    assert await command_line.run("extend", "b", "--deadline", "90") == (0, "", said)
    code, out, _ = await command_line.run("extend", "b", "--deadline", "120", "--json")
    status = await (await producer.attach("b")).status()
    assert (code, json.loads(out)) == (0, {"batch": "b", "deadline": status.deadline})
    code, _, said = await command_line.run("extend", "b", "--deadline", "5")
    assert code == 1
    assert said.startswith("error: extend(deadline=5) would shorten batch 'b', which has ")
    assert said.count("\n") == 1
