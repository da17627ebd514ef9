"""`straggler dashboard` as an operator meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from protocol.errors import UsageError
from protocol.settings import Settings
from straggler.commands import dashboard as command
from straggler.commands.place import Place
from tests.commands import Command
from tests.conftest import PATIENCE

pytestmark = pytest.mark.redis


@contextmanager
def dashboard(redis_url: str, log: Path, *words: str, **environment: str) -> Iterator[Command]:
    """Start a dashboard on a free port."""
    line = ["dashboard", "--port", "0", "--redis", redis_url, *words]
    given = {name: value for name, value in os.environ.items() if not name.startswith("STRAGGLER_")} | environment
    with (
        log.open("wb") as output,
        Command(*line, stderr=output, stdout=output, env=given) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for(log: Path, pattern: str) -> str:
    """Wait until the log holds it, and return its group."""
    deadline = time.monotonic() + PATIENCE
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return found[1]


def ended(redis_url: str, tmp_path: Path, *words: str) -> tuple[int, str]:
    """Start one that does not serve; returns its code and what it says."""
    with dashboard(redis_url, tmp_path / "log", *words) as process:
        code = process.wait(PATIENCE)
    return code, (tmp_path / "log").read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_serves_and_stops_in_order_also_with_a_page_open(
    redis_url: str, tmp_path: Path, signum: signal.Signals
) -> None:
    log = tmp_path / "log"
    with dashboard(redis_url, log) as process:
        address = wait_for(log, r"dashboard on (http://\S+/)")
        assert httpx.get(address).status_code == 200
        with httpx.stream("GET", f"{address}live") as response:
            assert next(response.iter_text()).startswith("event: parts")
            process.send_signal(signum)
            assert process.wait(PATIENCE) == 0
    assert log.read_text().count("\n") == 1


def test_token_is_taken_from_the_environment_or_made_and_printed(redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    allowed = {"STRAGGLER_DASHBOARD_ACTIONS": "true"}
    cases: list[tuple[list[str], dict[str, str]]] = [
        (["--allow-actions"], {}),
        ([], allowed),
        (["--allow-actions"], {"STRAGGLER_DASHBOARD_TOKEN": "from-the-environment"}),
        ([], {**allowed, "STRAGGLER_DASHBOARD_TOKEN": "from-the-environment"}),
    ]
    for words, environment in cases:
        with dashboard(redis_url, log, *words, **environment):
            address = wait_for(log, r"dashboard on (http://\S+)/")
            token = environment.get("STRAGGLER_DASHBOARD_TOKEN") or wait_for(log, r"the token for actions: (\S+)")
            assert ("token for actions" in log.read_text()) is ("STRAGGLER_DASHBOARD_TOKEN" not in environment)
            headers = {"Origin": address}
            login = httpx.post(f"{address}/login", data={"token": token}, headers=headers)
            assert login.status_code == 303


def test_whoever_opens_it_to_others_is_told(redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with dashboard(redis_url, log, "--host", "0.0.0.0", "--allow-host", "dash.example"):  # noqa: S104  # said to be
        address = wait_for(log, r"dashboard on (http://\S+)/").replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        wait_for(log, "(everybody who reaches this address)")
        assert httpx.get(address).status_code == 421
        assert httpx.get(address, headers={"Host": "dash.example"}).status_code == 200


def test_what_cannot_be_is_said_in_a_line(redis_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        code, said = ended(redis_url, tmp_path, "--port", str(busy.getsockname()[1]))
    assert (code, said.count("\n")) == (1, 1)
    assert "cannot listen on 127.0.0.1 port" in said
    assert "--token is for --allow-actions" in ended(redis_url, tmp_path, "--token", "long-enough")[1]
    assert "can be guessed" in ended(redis_url, tmp_path, "--allow-actions", "--token", "short")[1]
    assert "cannot listen on no.such.host.invalid" in ended(redis_url, tmp_path, "--host", "no.such.host.invalid")[1]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_NEEDED", ("starlette", "not_installed_here"))
    with pytest.raises(UsageError, match=r"needs not_installed_here: pip install 'straggler\[dashboard\]'"):
        command.dashboard(
            Place(Settings(), "memory://"), "127.0.0.1", 0, allow_actions=False, token=None, hosts=[], verbose=False
        )


def test_the_docs_name_options_that_there_are() -> None:
    words = [sys.executable, "-m", "straggler.cli", "dashboard", "--help"]
    said = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    ).stdout
    docs = Path(__file__).parents[2].joinpath("docs/dashboard.md").read_text()
    named = set(re.findall(r"--[a-z][a-z-]+", docs))
    assert {"--allow-actions", "--allow-host", "--port"} <= named
    assert [option for option in named if f"{option} " not in said] == []
