"""docker-compose.yml: what it promises, and its very commands as processes of this machine.

There is no container here. Each service's command runs as it stands, in a directory that holds what the image's /app
holds, with the environment that the image and the file give; only addresses and Redis' directory are others.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml
from redis import Redis
from redis.exceptions import RedisError

from protocol.batches import BatchOptions
from protocol.settings import Settings
from straggler.usage.app import app
from tests.conftest import PATIENCE

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
services: dict[str, dict[str, Any]] = compose["services"]
OURS = ("worker", "dashboard", "producer")
CHECKED = ("worker", "dashboard")


# ---- what the file says


def test_there_are_redis_two_workers_a_dashboard_and_a_producer_that_starts_only_on_demand() -> None:
    assert set(services) == {"redis", *OURS}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert [name for name in services if "profiles" in services[name]] == ["producer"]


@pytest.mark.parametrize("name", services)
def test_no_service_leaves_the_network_of_the_file(name: str) -> None:
    assert {"network_mode", "privileged", "pid", "ipc"}.isdisjoint(services[name])


def test_only_the_dashboard_is_published_and_only_to_this_machine() -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "dashboard": ["127.0.0.1:8080:8080"]
    }


def test_dashboard_answers_by_the_names_of_this_machine_and_of_its_service_only() -> None:
    words = services["dashboard"]["command"]
    named = {words[place + 1] for place, word in enumerate(words) if word == "--allow-host"}
    assert named == {"localhost", "127.0.0.1", "dashboard"}


def test_dashboard_lets_nobody_act_until_the_environment_says_so() -> None:
    assert not settings_of("dashboard").dashboard_actions
    assert "--allow-actions" not in services["dashboard"]["command"]
    given = {"STRAGGLER_DASHBOARD_ACTIONS": "true", "STRAGGLER_DASHBOARD_TOKEN": "long enough"}
    asked = settings_of("dashboard", **given)
    assert asked.dashboard_actions
    assert asked.dashboard_token is not None
    assert asked.dashboard_token.get_secret_value() == "long enough"


def test_workers_serve_metrics_where_the_environment_says_so() -> None:
    assert settings_of("worker").metrics_port is None
    asked = settings_of("worker", STRAGGLER_METRICS_PORT="9464")
    assert (asked.metrics_host, asked.metrics_port) == ("0.0.0.0", 9464)  # noqa: S104  # on the network of the file


def test_image_has_the_extras_of_what_serves() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"extras\['(\w+)'\]", DOCKERFILE)) == {"dashboard", "metrics"} <= set(extras)


def test_builder_is_sent_all_rooms_of_the_package() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {*build["targets"]["wheel"]["packages"], "pyproject.toml", "constraints.txt", "README.md"} <= sent


@pytest.mark.parametrize("name", services)
def test_no_service_is_root_or_may_become_it_or_write_its_file_system(name: str) -> None:
    service = services[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_write_to_memory_only(name: str) -> None:
    assert services[name]["tmpfs"] == ["/tmp"]  # noqa: S108  # the container's own
    assert "volumes" not in services[name]


def test_redis_appends_every_write_to_a_file_on_a_named_volume() -> None:
    words = services["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    directory = words[words.index("--dir") + 1]
    [(volume, mounted_at)] = [mount.split(":") for mount in services["redis"]["volumes"]]
    assert mounted_at == directory
    assert volume in compose["volumes"]


def test_what_serves_has_a_health_check_and_comes_back_and_the_others_wait_for_redis() -> None:
    for name in ("redis", *CHECKED):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services[name]["restart"] == "unless-stopped"
    for name in OURS:
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_a_worker_may_stop_in_its_own_time_before_it_is_killed() -> None:
    grace = BatchOptions().grace
    assert stop_grace_period("worker") > settings_of("worker").shutdown_wait + grace


@pytest.mark.parametrize("name", OURS)
def test_settings_are_known_and_lead_to_the_redis_of_the_file(name: str) -> None:
    known = {f"STRAGGLER_{field.upper()}" for field in Settings.model_fields}
    assert set(services[name]["environment"]) <= known
    assert settings_of(name).redis_url == "redis://redis:6379/0"


def test_image_runs_as_the_user_of_the_file() -> None:
    [user] = re.findall(r"^USER (.+)$", DOCKERFILE, re.M)
    assert {services[name]["user"] for name in OURS} == {user}
    assert {services[name]["build"] for name in OURS} == {"."}


def test_process_1_of_the_image_buries_what_killed_jobs_leave_behind() -> None:
    assert 'ENTRYPOINT ["tini", "--"]\n' in DOCKERFILE
    assert [name for name in OURS if "entrypoint" in services[name]] == []


@pytest.mark.parametrize(
    "words",
    [*(services[name]["command"] for name in CHECKED), services["worker"]["healthcheck"]["test"][1:]],
    ids=["worker", "dashboard", "worker's check"],
)
def test_words_of_a_command_are_known_to_the_command_line(words: list[str]) -> None:
    assert words[0] == "straggler"
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group | typer.core.TyperGroup)
    command = group.commands[words[1]]
    context = command.make_context(words[1], list(words[2:]), resilient_parsing=False)
    assert context.params.get("jobs") in {None, "examples/jobs.py"}


def test_files_that_commands_name_are_in_the_image() -> None:
    assert "COPY examples examples" in DOCKERFILE
    named = [word for name in OURS for word in services[name]["command"] if word.endswith(".py")]
    assert len(named) == 2
    assert [word for word in named if not (ROOT / word).is_file()] == []


def stop_grace_period(name: str) -> float:
    return float(services[name]["stop_grace_period"].removesuffix("s"))


def settings_of(name: str, **given: str) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in interpolated(name, **given).items():
            patch.setenv(key, value)
        return Settings.read()


def interpolated(name: str, **given: str) -> dict[str, str]:
    """Give a service's environment where these variables are set when compose reads the file."""
    environment: dict[str, str] = services[name]["environment"]
    return {
        key: re.sub(r"\$\{(\w+):-\}", lambda found: given.get(found[1], ""), value)
        for key, value in environment.items()
    }


# ---- what its commands do


@pytest.fixture
def app_directory(tmp_path: Path) -> Path:
    """Make what the image has in /app."""
    shutil.copytree(ROOT / "examples", tmp_path / "app/examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "app"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """Run the redis service; gives the port that it listens to, on the loopback only."""
    port = free_port()
    directory = tmp_path / "data"
    directory.mkdir()
    words = [str(directory) if word == "/data" else word for word in services["redis"]["command"]]
    with running([*words, "--bind", "127.0.0.1", "--port", str(port)], tmp_path / "redis.log", tmp_path) as redis:
        with Redis(port=port) as client:
            wait_until(partial(answers, client), redis)
        yield port
        assert (directory / "appendonlydir").is_dir()
        assert stop(redis, stop_grace_period("redis")) == 0


@pytest.mark.redis
def test_commands_of_the_file_bring_the_example_batch_to_its_end(
    redis_port: int, app_directory: Path, tmp_path: Path
) -> None:
    before = files_below(app_directory)
    environment = {name: environment_of(name, redis_port) for name in OURS}
    logs = [tmp_path / f"worker-{number}.log" for number in (1, 2)]
    command = services["worker"]["command"]
    with (
        running(command, logs[0], app_directory, environment["worker"]) as first,
        running(command, logs[1], app_directory, environment["worker"]) as second,
    ):
        for worker, log in zip((first, second), logs, strict=True):
            wait_until(partial(says, log, "takes jobs from"), worker)
        check = services["worker"]["healthcheck"]["test"][1:]
        with running(check, tmp_path / "check.log", app_directory, environment["worker"]) as health:
            assert health.wait(PATIENCE) == 0, (tmp_path / "check.log").read_text()
        log = tmp_path / "producer.log"
        with running(services["producer"]["command"], log, app_directory, environment["producer"]) as producer:
            assert producer.wait(PATIENCE) == 0, log.read_text()
        for worker in (first, second):
            assert stop(worker, stop_grace_period("worker")) == 0
    assert files_below(app_directory) == before


@pytest.mark.redis
def test_health_check_fails_where_there_is_no_worker(redis_port: int, app_directory: Path, tmp_path: Path) -> None:
    check = services["worker"]["healthcheck"]["test"][1:]
    log = tmp_path / "check.log"
    with running(check, log, app_directory, environment_of("worker", redis_port)) as health:
        assert health.wait(PATIENCE) == 1
    assert "no worker" in log.read_text()


@pytest.mark.redis
def test_dashboard_of_the_file_is_well_and_shows_to_browsers_and_prometheus(
    redis_port: int, app_directory: Path, tmp_path: Path
) -> None:
    before = files_below(app_directory)
    port, log, environment = free_port(), tmp_path / "dashboard.log", environment_of("dashboard", redis_port)
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in services["dashboard"]["command"]]  # noqa: S104  # undone
    with running([*words, "--port", str(port)], log, app_directory, environment) as dashboard:
        wait_until(partial(says, log, "dashboard on http"), dashboard)
        check = [word.replace("8080", str(port)) for word in services["dashboard"]["healthcheck"]["test"][1:]]
        with running(check, tmp_path / "check.log", app_directory, environment) as health:
            assert health.wait(PATIENCE) == 0, (tmp_path / "check.log").read_text()
        assert "No batch" in fetched(port, "/", f"localhost:{port}")
        assert 'straggler_queue_workers{queue="default"} 0.0' in fetched(port, "/metrics", f"dashboard:{port}")
        with pytest.raises(urllib.error.HTTPError, match="421"):
            fetched(port, "/", "rebound.example.com")
        assert stop(dashboard, 10) == 0
    assert files_below(app_directory) == before


def fetched(port: int, path: str, host: str) -> str:
    """Fetch a page of the dashboard under one of its names."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # our own
        return str(answer.read().decode())


@contextmanager
def running(
    command: list[str], log: Path, directory: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service's command; it is killed at the end if it is still there."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def environment_of(name: str, port: int) -> dict[str, str]:
    """Give what the image and the file give, with Redis' address replaced, and what measures our tests."""
    image = dict(re.findall(r"(PYTHON\w+)=(\S+)", DOCKERFILE))
    measured = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    given = {key: value.replace("redis:6379", f"127.0.0.1:{port}") for key, value in interpolated(name).items()}
    return {**measured, "PATH": path, **image, **given}


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """Stop a service as compose does; returns the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(grace)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.02)


def says(log: Path, text: str) -> bool:
    return text in log.read_text()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def files_below(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))
