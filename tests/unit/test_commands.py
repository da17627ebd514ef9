"""Commands that tests start are what Python would have started: streams, environment, folder, signals, exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands import Command, straggler
from tests.conftest import PATIENCE, until

JOBS = """
import os, sys
from pathlib import Path
from straggler import job

@job
async def look(word: str) -> dict:
    is_fresh = "tests" not in sys.modules
    return {"folder": os.getcwd(), "seen": os.environ["SEEN"], "words": sys.argv, "is_fresh": is_fresh}

@job
async def wait(word: str) -> None:
    import asyncio
    Path("waits").touch()
    await asyncio.sleep(60)
"""


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "one.txt").write_text("x\n")
    return tmp_path


def test_it_has_the_environment_folder_words_and_streams_of_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seen in ("one", "two"):
        monkeypatch.setenv("SEEN", seen)
        done = straggler("run", "jobs.py:look", "-", "--out", "-", stdin="x\n", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        value = json.loads(done.stdout)["value"]
        assert value == {
            "folder": str(tmp_path), "seen": seen, "is_fresh": True,
            "words": [value["words"][0], "run", "jobs.py:look", "-", "--out", "-"],
        }  # fmt: skip


def test_its_exit_code_and_last_words_are_its_own(tmp_path: Path) -> None:
    done = straggler("run", "jobs.py:nope", "one.txt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: jobs.py has no 'nope'")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
async def test_it_is_waited_for_and_ended_as_any_process(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    with Command("run", "jobs.py:wait", "one.txt", cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        await until((tmp_path / "waits").exists)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signum)
        assert process.wait(PATIENCE) == code
        assert process.poll() == code


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        straggler("run", "jobs.py:wait", "one.txt", cwd=tmp_path, timeout=0.5)
    assert time.monotonic() - began < 40
