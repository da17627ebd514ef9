"""A worker process that was started before its words were known: it leaves where none come, and nobody reads them."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from straggler import cli
from straggler.commands import recruit
from straggler.commands.recruit import Recruit, await_words
from tests.commands import Command, straggler
from tests.conftest import WorkerProcess, until
from tests.integration.test_supervisor import children_of

COMMAND = b"straggler.commands.workerprocess"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give what is in the environment of all that a test starts."""
    monkeypatch.setenv("THIS_TEST", uuid4().hex)
    return os.environ["THIS_TEST"]


def recruits(mark: str) -> list[int]:
    """Name the worker processes that a test has started, whoever is their parent by now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = mark.encode() in (folder / "environ").read_bytes()
            if is_ours and COMMAND in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


@pytest.fixture
def silent_redis() -> Iterator[str]:
    """Give the URL of a Redis that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


# ---- no words come


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--processes", "0"], 2, "Invalid value"), (["--redis", "redis://127.0.0.1:1"], 1, "error: no Redis answers")],
)
def test_a_worker_that_cannot_be_leaves_no_process_behind(mark: str, words: list[str], code: int, said: str) -> None:
    done = straggler("worker", *words)
    assert recruits(mark) == []
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_supervisor_that_is_killed_before_it_has_told_its_process_anything_leaves_none_behind(
    mark: str, silent_redis: str, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        supervisor = Command("worker", "--redis", silent_redis, stdout=log, stderr=log)
    await until(lambda: recruits(mark))
    supervisor.kill()
    supervisor.wait()
    await until(lambda: not recruits(mark))
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize("line", ["", '[["--queue", "q"], {"A": "1"}]'])  # it ended, or was killed in the middle
def test_words_that_end_early_are_none(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(line.encode())))
    assert await_words() is None


# ---- they come


@pytest.mark.redis
async def test_a_password_in_the_url_is_on_no_workers_command_line(
    worker_process: Callable[..., WorkerProcess], redis_url: str, tmp_path: Path
) -> None:
    url = redis_url.replace("://", "://default:secret@")
    workers = worker_process(command=["straggler", "worker", "--processes", "2", "--redis", url], redis_url="redis://")
    await until(lambda: workers.output.count("takes jobs from") == 2)
    for pid in children_of(workers):
        for file in ("cmdline", "environ"):
            assert b"secret" not in Path(f"/proc/{pid}/{file}").read_bytes()
    workers.terminate()
    assert workers.wait() == 0


def test_a_process_that_died_before_it_was_told_anything_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "true")
    early = Recruit()
    early.process.wait()
    early.tell(["--queue", "q"], {})
    early.dismiss()


# ---- who has one


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("worker --nonsense", 1),
        ("worker --help", 0),
        ("worker -h", 0),
        ("worker --check --nonsense", 0),
        ("status --nonsense", 0),
        ("", 0),
    ],
)
def test_only_a_worker_is_started_ahead(monkeypatch: pytest.MonkeyPatch, words: str, count: int) -> None:
    dismissed: list[Any] = []

    class Counted:
        def dismiss(self) -> None:
            dismissed.append(self)

    monkeypatch.setattr(recruit, "Recruit", Counted)
    monkeypatch.setattr(sys, "argv", ["straggler", *words.split()])
    with pytest.raises(SystemExit):
        cli.main()
    assert len(dismissed) == count


def test_a_system_that_starts_no_process_ahead_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(sys, "argv", ["straggler", "worker", "--nonsense"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
