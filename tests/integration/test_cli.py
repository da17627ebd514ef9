"""The command line as people and scripts meet it: real processes, exit codes, what is on stdout and on stderr."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command, straggler
from tests.conftest import PATIENCE, ROOT

JOBS = """
import asyncio, time
from straggler import job

@job
async def fetch(user_id: int, delay: float = 0.0) -> str:
    if user_id == 7:
        await asyncio.sleep(60)
    if user_id == 8:
        raise ValueError("user 8 is [not] there")
    await asyncio.sleep(delay)
    return f"user_{user_id}"

@job(name="renamed")
async def named(x: str) -> str:
    return x.upper()

@job
async def stubborn(x: str) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@job
def block(x: str) -> None:
    time.sleep(600)

async def plain(x: str) -> str:
    print("hello from", x)
    return x.upper()

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a jobs file and an input of ten rows."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STRAGGLER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("jobs.py").write_text(JOBS)
    Path("ids.txt").write_text("".join(f"{number}\n" for number in range(10)))
    return tmp_path


def command(*words: str) -> list[str]:
    """Name what starts a command as users do, Python and all its imports with it."""
    return [sys.executable, "-W", "error", "-m", "straggler.cli", *words]


@contextmanager
def started(*words: str) -> Iterator[Command]:
    """Start a command with pipes for all three streams; kill it in the end, or when a test waits for it in vain."""
    pipe = subprocess.PIPE
    with Command(*words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        overdue = threading.Timer(3 * PATIENCE, process.kill)
        overdue.start()
        try:
            yield process
        finally:
            overdue.cancel()
            overdue.join()
            process.kill()


def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def rows_of(path: str) -> list[dict[str, Any]]:
    found = Path(path)
    return [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []


def statuses(path: str) -> Counter[str]:
    return Counter(row["status"] for row in rows_of(path))


# ---- help


def test_help_names_the_commands_and_is_fast() -> None:
    times = []
    for _ in range(5):
        began = cpu_of_children()
        done = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
        times.append(cpu_of_children() - began)
    for name in ("run", "worker", "submit", "collect", "status", "top", "workers", "timeline"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)
    assert done.stdout.count("...") == 1, "each command is told whole in a line of 80 letters"
    assert min(times) < 0.5  # 0.1 s of CPU, or more where it is measured; with redis or pydantic imported 0.4 s


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy() -> None:
    heavy = ("redis", "pydantic", "rich", "aiohttp", "arq")
    code = f"import sys, straggler.usage.app; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["run", "worker", "submit", "collect", "status"])
def test_every_command_takes_a_redis_url(name: str) -> None:
    assert "--redis URL" in straggler(name, "--help").stdout


def test_wrong_usage_is_exit_code_2() -> None:
    assert straggler("run").returncode == 2
    assert straggler("run", "a", "b", "--concurrency", "0").returncode == 2
    assert straggler("submit", "f", "ids.txt", "--out", "r.jsonl").returncode == 2


# ---- run


def test_run_needs_no_redis_and_tells_every_outcome() -> None:
    done = straggler("run", "jobs.py:fetch", "ids.txt", "--timeout", "0.3", "--out", "r.jsonl")
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert statuses("r.jsonl") == {"success": 8, "timeout": 1, "failure": 1}
    assert {row["key"] for row in rows_of("r.jsonl")} == set("0123456789")
    assert re.search(r"timed out +1 .*1 while running", done.stderr)
    assert "1x ValueError: user 8 is [not] there" in done.stderr
    assert re.search(r"slowest +3\d\d ms +timed out +7$", done.stderr, re.MULTILINE)


def test_run_of_jobs_that_all_succeed_is_exit_code_0() -> None:
    done = straggler("run", "jobs.py:named", "ids.txt", "--out", "r.csv", "--name", "x", "--queue-timeout", "9")
    assert done.returncode == 0, done.stderr
    with Path("r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["value"] for row in rows} == {f'"{number}"' for number in range(10)}
    assert {row["function"] for row in rows} == {"renamed"}


def test_run_overwrites_what_an_earlier_run_wrote() -> None:
    Path("r.jsonl").write_text("old\n")
    assert straggler("run", "jobs.py:named", "ids.txt", "--out", "r.jsonl").returncode == 0
    assert len(rows_of("r.jsonl")) == 10


def test_plain_function_of_a_module_runs_without_job_decorator() -> None:
    done = straggler("run", "jobs:plain", "-", "--out", "-", stdin="a\n")
    assert done.returncode == 0, done.stderr
    said, row = done.stdout.splitlines()
    assert said == "hello from a"
    assert json.loads(row)["value"] == "A"


def test_run_takes_its_concurrency() -> None:
    Path("naps.csv").write_text("user_id,delay\n" + "1,0.2\n" * 4)
    straggler("run", "jobs.py:fetch", "naps.csv", "--concurrency", "1", "--out", "r.jsonl")
    times = sorted((row["started_at"], row["finished_at"]) for row in rows_of("r.jsonl"))
    # Redis' clock is read anew now and then: two results' times may differ by the two readings' errors.
    assert all(end <= start + 0.05 for (_, end), (start, _) in pairwise(times))


def test_key_names_the_job_and_is_no_argument() -> None:
    Path("users.csv").write_text("name,user_id\nann,1\nbob,2\n")
    done = straggler("run", "jobs.py:fetch", "users.csv", "--key", "name", "--out", "r.jsonl")
    assert done.returncode == 0, done.stderr
    assert {(row["key"], row["value"]) for row in rows_of("r.jsonl")} == {("ann", "user_1"), ("bob", "user_2")}


def test_run_shows_results_of_a_pipe_while_it_is_open() -> None:
    with started("run", "jobs.py:fetch", "-", "--out", "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in ("1", "2"):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["value"] == f"user_{number}"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_empty_input_is_a_batch_without_jobs() -> None:
    Path("empty.csv").write_text("")
    done = straggler("run", "jobs.py:fetch", "empty.csv", "--out", "r.jsonl")
    assert done.returncode == 0
    assert done.stderr == "empty.csv holds no jobs: the batch is empty\n"
    assert Path("r.jsonl").read_text() == ""


@pytest.mark.parametrize("name", ["stubborn", "block"])
def test_job_that_cannot_be_stopped_does_not_keep_the_process(name: str) -> None:
    Path("one.txt").write_text("a\n")
    options = ("--timeout", "0.3", "--grace", "0.2", "--out", "r.jsonl")
    done = straggler("run", f"jobs.py:{name}", "one.txt", *options)
    assert done.returncode == 3, done.stderr
    assert statuses("r.jsonl") == {"timeout": 1}


def test_ctrl_c_stops_a_run_and_keeps_what_it_has() -> None:
    with started("run", "jobs.py:fetch", "ids.txt", "--out", "r.jsonl") as process:
        until(lambda: len(rows_of("r.jsonl")) == 9)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert statuses("r.jsonl") == {"success": 8, "failure": 1}
    assert re.search(r"no result yet +1 ", said)
    assert "Traceback" not in said


def test_killed_run_keeps_what_it_had() -> None:
    with started("run", "jobs.py:fetch", "ids.txt", "--out", "r.csv") as process:
        until(lambda: Path("r.csv").exists() and len(Path("r.csv").read_text().splitlines()) == 10)
        process.kill()
        process.wait()
    assert len(list(csv.DictReader(Path("r.csv").read_text().splitlines()))) == 9


def test_run_ends_at_the_deadline_of_its_batch_and_collects_what_it_has() -> None:
    with started("run", "jobs.py:fetch", "-", "--deadline", "3", "--grace", "0.1", "--out", "r.jsonl") as process:
        assert process.stdin is not None
        for number in ("1", "7"):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
        until(lambda: statuses("r.jsonl") == {"success": 1, "timeout": 1})
        process.stdin.write("2\n")  # too late
        process.stdin.close()
        code = process.wait(PATIENCE)
        assert process.stderr is not None
        said = process.stderr.read()
    # The batch is closed a moment after its jobs have timed out: a row that comes in between is one of them.
    late = [(row["phase"], row["stopped"]) for row in rows_of("r.jsonl") if row["status"] == "timeout"]
    assert late in ([("batch", "cancelled")], [("batch", "cancelled"), ("batch", "not started")])
    assert "timed out" in said
    # Where all was over before the row came, nobody has read it.
    assert code == (
        1 if re.search(r"batch '\w+' is closed with 2 jobs, and nothing beyond them was added", said) else 3
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--retry-on", "failure,lost"), "batch option retry_on.1: Input should be 'failure' or 'timeout', got 'lost'"),
        (("--retries", "-1"), "batch option retries: Input should be greater than or equal to 0, got -1"),
        (("--backoff", "-1"), "batch option backoff: Input should be greater than or equal to 0, got -1"),
        (("--deadline", "0"), "batch option deadline: Input should be greater than 0, got 0"),
    ],
)
def test_option_that_cannot_be_is_said_before_the_input_is_read(words: tuple[str, ...], expected: str) -> None:
    for name in ("run", "submit"):
        done = straggler(name, "jobs.py:fetch", "no-such-file.txt", *words)
        assert (done.returncode, done.stderr.startswith(f"error: {expected}")) == (1, True), done.stderr


# ---- bad rows and other errors


def test_bad_row_of_a_file_is_found_before_anything_runs() -> None:
    Path("u.jsonl").write_text('{"user_id": 1}\n{"user_id": "abc"}\n')
    Path("r.jsonl").write_text("old\n")
    done = straggler("run", "jobs.py:fetch", "u.jsonl", "--out", "r.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith("error: u.jsonl line 2: fetch: user_id: Input should be a valid integer")
    assert done.stderr.endswith("got 'abc' (--skip-bad-rows goes on without such rows)\n")
    assert done.stderr.count("\n") == 1
    assert Path("r.jsonl").read_text() == "old\n"


def test_skipped_rows_are_told_and_counted_and_the_rest_runs() -> None:
    Path("ids.txt").write_text("x\n" * 20 + "1\n2\n")
    done = straggler("run", "jobs.py:fetch", "ids.txt", "--skip-bad-rows", "--out", "r.jsonl")
    assert done.returncode == 0
    assert done.stderr.count("skipped: ids.txt line ") == 5
    assert "skipped: 20 bad rows in all" in done.stderr
    assert statuses("r.jsonl") == {"success": 2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "nope.py:fetch", "ids.txt"), "no file 'nope.py' here"),
        (("run", "jobs.py:nope", "ids.txt"), "jobs.py has no 'nope'; its jobs are block, fetch, named, stubborn"),
        (("run", "jobs.py:number", "ids.txt"), "'number' in jobs.py is no job: put @job"),
        (("run", "http.nope", "ids.txt"), "no job 'http.nope' here"),
        (("run", "jobs.py:fetch", "no.txt"), "no.txt cannot be read: No such file or directory"),
        (("run", "jobs.py:fetch", "ids.txt", "--timeout", "0"), "timeout: Input should be greater than 0, got 0.0"),
        (("run", "jobs.py:fetch", "ids.txt", "--out", "ids.txt"), "--out ids.txt is the input itself"),
        (
            ("run", "jobs.py:fetch", "ids.txt", "--out", "r.xml"),
            "--out r.xml: results are written as .jsonl, .csv or .parquet",
        ),
        (
            ("run", "sub/json.py:fetch", "ids.txt"),
            "sub/json.py cannot be imported, as Python has another module named 'json'",
        ),
        (("status", "--redis", "redis://localhost:1"), "no Redis answers at redis://localhost:1"),
        (("worker", "--redis", "redis://localhost:1"), "no Redis answers at redis://localhost:1"),
        (("worker", "--check", "--redis", "redis://localhost:1"), "no Redis answers at redis://localhost:1"),
        (("worker", "--jobs", "nope"), "module 'nope' cannot be imported: ModuleNotFoundError"),
        (("submit", "jobs.py:plain", "ids.txt"), "'plain' in jobs.py is no job: put @job"),
        (("worker", "--queue", "a b"), "queue 'a b' cannot be: use 1 to 100 letters, digits, '_', '.' and '-'"),
        (("worker", "--queue", "a:b:c"), "queue 'a:b:c' cannot be"),
        (("run", "jobs.py", "ids.txt"), "'jobs.py' names no job: put its name behind, as in jobs.py:fetch"),
        (("status", "--redis", "memory://"), "'memory://' ends with this process"),
        (("worker", "--redis", "memory://x"), "'memory://x' ends with this process"),
        (("submit", "http.fetch", "ids.txt", "--on-complete", "jobs.py:nope"), "jobs.py has no 'nope'"),
        (("collect", "x", "--redis", "http://localhost"), "'http://localhost' is no Redis URL"),
    ],
)
def test_error_is_one_line_and_exit_code_1(words: tuple[str, ...], expected: str) -> None:
    Path("sub").mkdir()
    Path("sub/json.py").write_text(JOBS)
    done = straggler(*words)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if " WARNING " not in line]
    assert line.startswith("error: ")
    assert expected in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "a", "b", "--timeout", "3s"), "Invalid value for '--timeout': .* number, got '3s'$"),
        (("run", "a", "b", "--concurrency", "0"), "Invalid value for '--concurrency': .* 1, got '0'$"),
        (("run", "a", "b", "--format", "xml"), "Invalid value for '--format': 'xml' is not one of 'txt', .*csv'[.]$"),
        (("run", "a", "b", "--timout", "3"), "No such option: --timout .*--timeout"),
        (("statsu",), "No such command 'statsu'. Did you mean 'status'"),
    ],
)
def test_wrong_usage_is_said_with_its_value_and_exit_code_2(words: tuple[str, ...], said: str) -> None:
    done = straggler(*words)
    assert done.returncode == 2
    assert re.search(said, done.stderr.rstrip()), done.stderr


def test_version_short_help_and_completion() -> None:
    assert straggler("--version").stdout == f"{version('straggler')}\n"
    assert straggler("cancel", "-h").stdout == straggler("cancel", "--help").stdout
    asked = {"COMP_WORDS": "straggler can", "COMP_CWORD": "1", "_STRAGGLER_COMPLETE": "complete_bash"}
    assert straggler(env={**os.environ, **asked}).stdout == "cancel\n"


def test_unknown_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAGGLER_REDIS", "redis://localhost")
    done = straggler("status")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown setting STRAGGLER_REDIS; did you mean STRAGGLER_REDIS_URL?")


def test_reader_that_leaves_stdout_is_said_without_traceback() -> None:
    Path("many.txt").write_text("1\n" * 2000)
    words = " ".join(command("run", "jobs.py:named", "many.txt", "--out", "-"))
    done = subprocess.run(f"{words} | head -1", shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.endswith("error: results cannot be written to stdout: Broken pipe\n")


# ---- a terminal


def on_a_terminal(*words: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; returns its exit code and all that it wrote there."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = Command(*words, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    written = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and select.select([leader], [], [], 30)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        written += piece
    os.close(leader)
    return process.wait(PATIENCE), written.decode()


def test_terminal_shows_a_bar_with_counts_while_jobs_run() -> None:
    code, written = on_a_terminal("run", "jobs.py:fetch", "ids.txt", "--timeout", "3", "--out", "r.jsonl")
    assert code == 3
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"90% +9/10 0:00:0\d .* left", plain)
    assert "8 succeeded · 1 failed · 1 running" in plain
    assert re.search(r"at work  7 [12]\.\d\d s of 3\.00 s", plain), "the slowest job"
    assert "timed out" in plain.split("slowest")[0]


def test_watched_run_shows_its_screen() -> None:
    code, written = on_a_terminal("run", "jobs.py:fetch", "ids.txt", "--timeout", "3", "--watch")
    assert code == 3
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"9 of 10 done · .* a second · \d s left at most", plain)
    assert re.search(r"^ +1  ValueError: user 8 is \[not\] there", plain, re.MULTILINE)
    assert re.search(r"^7 +━+─+ +[12]\.\d\d s of 3\.00 s +fetch", plain, re.MULTILINE)


def test_summary_is_json_where_that_is_asked_for() -> None:
    done = straggler("run", "jobs.py:fetch", "ids.txt", "--timeout", "0.3", "--json")
    assert done.returncode == 3
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["total"], found["success"], found["timeout"], found["failure"]) == (10, 8, 1, 1)
    assert found["timeouts"] == {"running": 1}
    assert found["failures"] == [{"error_type": "ValueError", "message": "user 8 is [not] there", "count": 1}]
    assert found["slowest"][0]["key"] == "7"
    assert 0.3 <= found["run_time"]["max"] <= found["elapsed"]


@pytest.mark.parametrize(
    "words", [("run", "jobs.py:fetch", "ids.txt"), ("collect", "b"), ("submit", "f", "ids.txt", "--wait")]
)
def test_results_and_summary_cannot_both_go_to_stdout(words: tuple[str, ...]) -> None:
    done = straggler(*words, "--out", "-", "--json")
    assert done.returncode == 2
    assert "the results go to stdout" in done.stderr


def test_jobs_warnings_stand_above_the_bar_in_whole_lines() -> None:
    _, written = on_a_terminal("run", "jobs.py:stubborn", "ids.txt", "--timeout", "0.3", "--grace", "0.3")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    whole = r"[\r\n]20\d\d-\S+ \S+ WARNING job \w+:\d stubborn ignores its cancellation; .* 0\.3 s of grace\r?\n"
    assert len(re.findall(whole, plain)) == 10


# ---- with Redis


@pytest.fixture
def on_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRAGGLER_REDIS_URL", redis_url)


@contextmanager
def worker(*words: str) -> Iterator[Command]:
    """Start a worker and wait until it takes jobs; SIGTERM ends it."""
    with started("worker", *words) as process:
        assert process.stderr is not None
        assert "takes jobs from queue" in next(line for line in process.stderr if "takes jobs" in line)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def is_told_by_its_worker(found: dict[str, Any]) -> bool:
    """Whether a worker has said, as it does now and then, that it runs one job, and which: the others are done."""
    workers = [worker["running"] for queue in found["queues"] for worker in queue["workers"]]
    return workers == [1] and len(found["running"]) == 1


@pytest.mark.redis
@pytest.mark.usefixtures("on_redis")
class TestWithRedis:
    def test_submitted_batch_is_run_by_a_worker_and_collected(self) -> None:
        with worker("--jobs", "jobs.py", "--concurrency", "5"):
            submitted = straggler("submit", "fetch", "ids.txt", "--timeout", "0.3", "--name", "users")
            assert submitted.returncode == 0, submitted.stderr
            assert submitted.stderr == ""
            [batch_id] = submitted.stdout.splitlines()
            collected = straggler("collect", batch_id, "--out", "r.jsonl")
        assert collected.returncode == 3
        assert collected.stdout == ""
        assert statuses("r.jsonl") == {"success": 8, "timeout": 1, "failure": 1}
        listed = straggler("status")
        assert re.search(rf"{batch_id} +users .* done in .* 10 +8 +1 +1$", listed.stdout, re.MULTILINE)
        told = straggler("status", batch_id)
        assert re.search(r"succeeded +8", told.stdout)

    def test_submit_without_a_worker_says_so(self) -> None:
        done = straggler("submit", "fetch", "ids.txt", "--queue", "other")
        assert done.returncode == 0
        assert "no worker is alive on queue 'other'" in done.stderr
        assert "straggler worker --jobs MODULE --queue other" in done.stderr
        told = straggler("status", done.stdout.strip())
        assert "none is alive: start one with 'straggler worker --jobs MODULE --queue other'" in told.stdout

    def test_job_that_is_not_where_it_is_said_to_be_is_refused(self) -> None:
        assert straggler("submit", "unheard.of", "ids.txt").returncode == 0, "the workers may know it"
        done = straggler("submit", "unheard.of", "ids.txt", "--jobs", "jobs.py")
        assert (done.returncode, done.stdout) == (1, "")
        assert "unheard.of" in done.stderr

    def test_status_as_json_counts_where_jobs_are(self) -> None:
        batch_id = straggler("submit", "fetch", "ids.txt", "--batch-id", "my.batch").stdout.strip()
        assert batch_id == "my.batch"
        found = json.loads(straggler("status", batch_id, "--json").stdout)
        counts = {name: found[name] for name in ("total", "queued", "running", "done", "success", "complete")}
        assert counts == {"total": 10, "queued": 10, "running": 0, "done": 0, "success": 0, "complete": False}
        assert found["finished_at"] is None
        assert [row["batch_id"] for row in json.loads(straggler("status", "--json").stdout)] == [batch_id]

    def test_same_batch_id_adds_nothing_twice(self) -> None:
        for _ in range(2):
            assert straggler("submit", "fetch", "ids.txt", "--batch-id", "b").returncode == 0
        assert json.loads(straggler("status", "b", "--json").stdout)["total"] == 10

    def test_no_batches_and_no_batch_are_said(self) -> None:
        assert straggler("status").stdout == "no batches in this Redis\n"
        assert json.loads(straggler("status", "--json").stdout) == []
        done = straggler("collect", "nope")
        assert (done.returncode, done.stderr.startswith("error: no batch 'nope' in this Redis")) == (1, True)

    def test_submit_wait_collects_to_the_end(self) -> None:
        with worker("--jobs", "jobs.py"):
            done = straggler("submit", "jobs.py:fetch", "-", "--wait", "--out", "r.csv", stdin="1\n2\n")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"\w{16}\n", done.stdout)
        assert "100 %" in done.stderr
        assert len(Path("r.csv").read_text().splitlines()) == 3

    def test_results_on_stdout_are_alone_there(self) -> None:
        with worker("--jobs", "jobs.py"):
            done = straggler("submit", "renamed", "-", "--wait", "--out", "-", "--batch-id", "b", stdin="a\n")
        assert [json.loads(line)["value"] for line in done.stdout.splitlines()] == ["A"]
        assert done.stderr.startswith("b\n")

    def test_rows_are_checked_before_anything_is_sent_where_the_function_is_at_hand(self) -> None:
        Path("ids.txt").write_text("1\nabc\n")
        done = straggler("submit", "fetch", "ids.txt", "--jobs", "jobs.py")
        assert (done.returncode, done.stdout) == (1, "")
        assert "error: ids.txt line 2: fetch: user_id: Input should be a valid integer" in done.stderr
        assert straggler("status").stdout == "no batches in this Redis\n"

    def test_bad_row_of_a_pipe_leaves_no_batch_open_unnoticed(self) -> None:
        # As many rows as need several chunks, so that some are sent before the bad one is read.
        good = "1\n" * 5000
        done = straggler("submit", "jobs.py:fetch", "-", "--batch-id", "b", stdin=f"{good}abc\n2\n")
        assert done.returncode == 1
        found = json.loads(straggler("status", "b", "--json").stdout)
        assert not found["closed"]
        assert f"batch b stays open with its first {found['total']:,} jobs" in done.stderr
        assert "--batch-id b" in done.stderr
        assert "error: stdin line 5001: fetch: user_id" in done.stderr
        mended = straggler("submit", "jobs.py:fetch", "-", "--batch-id", "b", stdin=f"{good}3\n2\n")
        assert mended.returncode == 0
        assert json.loads(straggler("status", "b", "--json").stdout)["total"] == 5002

    def test_ctrl_c_leaves_the_batch_running_and_says_how_to_collect_the_rest(self) -> None:
        with worker("--jobs", "jobs.py"):
            words = ("submit", "fetch", "ids.txt", "--timeout", "8", "--wait", "--out", "r.jsonl")
            with started(*words) as process:
                until(lambda: len(rows_of("r.jsonl")) == 9)
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 130
                assert process.stderr is not None
                said = process.stderr.read()
            hint = re.search(r"straggler (collect \w{16} --out r\.jsonl)", said)
            assert hint
            rest = straggler(*hint[1].split())
        assert rest.returncode == 3
        assert statuses("r.jsonl") == {"success": 8, "failure": 1, "timeout": 1}

    def test_options_of_the_batch_reach_its_header(self, redis: Any) -> None:
        words = (
            "--deadline",
            "600",
            "--retries",
            "2",
            "--backoff",
            "0.5",
            "--retry-on",
            "timeout",
            "--retry-on",
            "failure",
        )
        straggler("submit", "fetch", "ids.txt", "--batch-id", "b", *words)
        assert json.loads(redis.hget("straggler:batch:b", "options")) == {
            "deadline": 600.0, "retries": 2, "backoff": 0.5, "retry_on": ["timeout", "failure"],
        }  # fmt: skip
        assert re.search(r"^deadline +20\d\d-", straggler("status", "b").stdout, re.MULTILINE)
        found = json.loads(straggler("status", "b", "--json").stdout)
        assert found["deadline"] == pytest.approx(found["created_at"] + 600, abs=0.01)

    @pytest.mark.parametrize("waits", [False, True])
    def test_batch_with_a_deadline_is_collected_without_any_worker(self, waits: bool) -> None:
        words = ("submit", "fetch", "ids.txt", "--deadline", "2", "--batch-id", "b")
        if waits:
            done = straggler(*words, "--wait", "--out", "r.jsonl")
        else:
            straggler(*words)
            done = straggler("collect", "b", "--out", "r.jsonl")
        assert done.returncode == 3, done.stderr
        assert statuses("r.jsonl") == {"timeout": 10}
        assert re.search(r"timed out +10 .*10 at the batch's deadline", done.stderr)

    def test_collectors_say_that_no_worker_is_alive(self) -> None:
        for words in (("submit", "fetch", "ids.txt", "--batch-id", "b", "--wait"), ("collect", "b")):
            with started(*words) as process:
                assert process.stderr is not None
                said = process.stderr.readline()
            assert " WARNING no worker is alive on queue 'default': batch b waits with 10 jobs open; " in said
            assert "start one with 'straggler worker --jobs MODULE --queue default'" in said

    def test_batch_that_cannot_be_read_is_said_and_the_others_are_listed(self, redis: Any) -> None:
        for batch_id in ("a", "b"):
            straggler("submit", "fetch", "ids.txt", "--batch-id", batch_id)
        redis.hset("straggler:batch:b", "total", "many")
        done = straggler("status")
        assert done.returncode == 0
        assert "\na " in done.stdout
        assert done.stderr.startswith("batch b cannot be read: unreadable data in Redis key 'straggler:batch:b': total")
        assert straggler("status", "b").stderr.startswith("error: unreadable data in Redis key 'straggler:batch:b'")

    def test_ctrl_c_of_collect_leaves_the_batch_running_and_the_rest_can_be_collected(self) -> None:
        straggler("submit", "fetch", "ids.txt", "--timeout", "8", "--batch-id", "b")
        with worker("--jobs", "jobs.py"):
            with started("collect", "b", "--out", "r.jsonl") as process:
                until(lambda: len(rows_of("r.jsonl")) == 9)
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 130
                assert process.stderr is not None
                hint = re.search(r"straggler (collect b --out r\.jsonl)", process.stderr.read())
            assert hint
            assert straggler(*hint[1].split()).returncode == 3
        assert sorted(row["index"] for row in rows_of("r.jsonl")) == list(range(10)), "each once"
        assert statuses("r.jsonl") == {"success": 8, "failure": 1, "timeout": 1}

    def test_collect_stops_when_its_time_is_up_and_the_batch_goes_on(self) -> None:
        straggler("submit", "fetch", "ids.txt", "--batch-id", "b")
        done = straggler("collect", "b", "--timeout", "0.2")
        assert done.returncode == 1
        assert "straggler collect b\n" in done.stderr
        assert "error: the time is up: 0 results were collected" in done.stderr
        assert not json.loads(straggler("status", "b", "--json").stdout)["complete"]

    def test_collect_without_cursor_overwrites_and_with_cursor_appends(self) -> None:
        straggler("submit", "renamed", "ids.txt", "--batch-id", "b")
        assert straggler("worker", "--jobs", "jobs.py", "--burst").returncode == 0
        for _ in range(2):
            assert straggler("collect", "b", "--out", "r.csv").returncode == 0
        assert len(Path("r.csv").read_text().splitlines()) == 11
        assert straggler("collect", "b", "--out", "r.csv", "--cursor", "0-0").returncode == 0
        assert len(Path("r.csv").read_text().splitlines()) == 21

    def test_results_that_cannot_be_written_can_be_collected_later(self) -> None:
        straggler("submit", "renamed", "ids.txt", "--batch-id", "b")
        straggler("worker", "--jobs", "jobs.py", "--burst")
        Path("full.jsonl").symlink_to("/dev/full")
        done = straggler("collect", "b", "--out", "full.jsonl")
        assert done.returncode == 1
        assert "batch b goes on; collect the rest with:\n  straggler collect b --out full.jsonl" in done.stderr
        assert "error: results cannot be written to full.jsonl: No space left on device" in done.stderr

    def test_worker_without_jobs_runs_the_ready_made_ones_and_says_so(self) -> None:
        Path("urls.txt").write_text("http://127.0.0.1:1/\n")
        straggler("submit", "http.fetch", "urls.txt", "--batch-id", "b")
        done = straggler("worker", "--burst")
        assert done.returncode == 0
        assert "no --jobs: only ready-made jobs run here, such as http.fetch" in done.stderr
        assert json.loads(straggler("status", "b", "--json").stdout)["failure"] == 1

    def test_top_shows_queues_workers_batches_and_the_slowest_jobs(self) -> None:
        straggler("submit", "fetch", "ids.txt", "--batch-id", "b", "--name", "users")
        with worker("--jobs", "jobs.py", "--concurrency", "20"):
            until(lambda: is_told_by_its_worker(json.loads(straggler("top", "--json").stdout)))
            found = json.loads(straggler("top", "--json").stdout)
            text = straggler("top").stdout
            [alive] = json.loads(straggler("workers", "--json").stdout)["workers"]
            listed = straggler("workers").stdout
        assert [queue["queue"] for queue in found["queues"]] == ["default"]
        assert found["queues"][0]["workers"][0]["slots"] == alive["slots"] == 20
        assert [(batch["batch_id"], batch["done"]) for batch in found["batches"]] == [("b", 9)]
        assert found["running"][0]["key"] == "7"
        assert re.search(r"^default +1 +20 +1 +0 +-", text, re.MULTILINE)
        assert re.search(r"^b +users +\d+ s +in progress +█+░* +9 +10 +1 ", text, re.MULTILINE)
        assert re.search(r"^7 +━+─* +\d+\.\d\d s of \d", text, re.MULTILINE)
        assert alive["worker_id"] in listed
        assert re.search(r"1 of 20", listed)
        assert "no worker is alive on queue 'other'" in straggler("workers", "--queue", "other").stdout

    def test_top_is_live_on_a_terminal_until_ctrl_c(self) -> None:
        straggler("submit", "fetch", "ids.txt", "--batch-id", "b")
        leader, follower = pty.openpty()
        process = Command(
            "top", "--interval", "0.1", stdin=follower, stdout=follower, stderr=follower,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        )  # fmt: skip
        os.close(follower)
        written = b""
        while written.count(b"\x1b[1mqueue") < 3 and select.select([leader], [], [], 30)[0]:
            written += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the other end is closed
            while os.read(leader, 65536):
                pass
        os.close(leader)
        assert process.wait(PATIENCE) == 130
        assert written.count(b"\x1b[1mqueue") >= 3, "it was drawn again and again"

    def test_timeline_draws_a_batch_and_a_file_of_results(self) -> None:
        straggler("submit", "fetch", "ids.txt", "--batch-id", "b", "--name", "users <b>", "--timeout", "0.3")
        straggler("worker", "--jobs", "jobs.py", "--burst")
        straggler("collect", "b", "--out", "r.jsonl")
        for source, out in (("b", "t.svg"), ("r.jsonl", "t.html")):
            done = straggler("timeline", source, "--out", out)
            assert (done.returncode, done.stderr) == (0, f"10 results are drawn in {out}\n")
            assert "8 succeeded" in Path(out).read_text()
        assert "users &lt;b&gt;" in Path("t.svg").read_text()
        for words, problem in {
            ("nope", "--out", "t.svg"): "no batch 'nope' in this Redis",
            ("b", "--out", "t.png"): "--out t.png: a picture is written as .svg or .html",
            ("b", "--out", "no/t.svg"): "the picture cannot be written to no/t.svg: No such file",
            ("none.jsonl", "--out", "t.svg"): "none.jsonl cannot be read: No such file",
        }.items():
            done = straggler("timeline", *words)
            assert done.returncode == 1
            assert problem in done.stderr
            assert len(done.stderr.splitlines()) == 1

    def test_submit_and_collect_tell_facts_as_json(self) -> None:
        sent = straggler("submit", "renamed", "ids.txt", "--batch-id", "b", "--json")
        assert json.loads(sent.stdout) == {"batch": "b", "jobs": 10}
        straggler("worker", "--jobs", "jobs.py", "--burst")
        done = straggler("collect", "b", "--json", "--out", "r.jsonl")
        assert (json.loads(done.stdout)["batch"], json.loads(done.stdout)["success"]) == ("b", 10)

    def test_check_tells_a_live_worker_from_none(self) -> None:
        assert straggler("worker", "--check").returncode == 1
        with worker("--jobs", "jobs.py", "--queue", "other"):
            until(lambda: straggler("worker", "--check", "--queue", "other").returncode == 0)
            assert straggler("worker", "--check").returncode == 1
        assert "is alive on queue 'other'" in straggler("worker", "--check", "--queue", "other").stderr

    def test_run_keeps_its_batch_in_a_redis_that_is_named(self, redis_url: str) -> None:
        done = straggler("run", "jobs.py:named", "ids.txt", "--redis", redis_url, "--out", "r.jsonl")
        assert done.returncode == 0, done.stderr
        [found] = json.loads(straggler("status", "--json").stdout)
        assert found["success"] == 10
        assert found["queue"].startswith("run-")
