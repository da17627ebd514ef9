"""Facts for programs: every command that prints any does so as one JSON document, and says nothing else on stdout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from straggler.usage.app import app
from tests.commands import straggler
from tests.conftest import ROOT, StartProcess

pytestmark = pytest.mark.redis

# Each command in the order of a batch's life; what it must tell.
WALK: dict[str, tuple[list[str], set[str]]] = {
    "run": (["tests.jobs:square", "numbers.txt"], {"success", "total"}),
    "submit": (["square", "numbers.txt", "--batch-id", "b"], {"batch", "jobs"}),
    "collect": (["b", "--out", "results.jsonl"], {"batch", "success"}),
    "status": (["b"], {"batch_id", "total", "workers"}),
    "top": ([], {"queues", "batches"}),
    "workers": ([], {"queue", "workers"}),
    "worker": (["--check"], {"healthy", "host", "queue", "says"}),
    "timeline": (["b", "--out", "b.svg"], {"results", "out"}),
    "extend": (["late", "--deadline", "100"], {"batch", "deadline"}),
    "cancel": (["late"], {"batch", "cancelled"}),
    "retry": (["late", "--only", "cancelled"], {"batch", "jobs"}),
    "delete": (["late"], {"batch", "jobs", "results"}),
}
# It prints where it serves, and goes on.
SERVES = {"dashboard"}


def commands() -> dict[str, click.Command]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_every_command_that_prints_facts_takes_json() -> None:
    with_json = {name for name, each in commands().items() if any("--json" in param.opts for param in each.params)}
    assert with_json == set(commands()) - SERVES == set(WALK)


def test_every_command_prints_one_document_and_nothing_else(
    worker_process: StartProcess, redis_url: str, tmp_path: Path
) -> None:
    worker_process(command=["straggler", "worker"])
    (tmp_path / "numbers.txt").write_text("1\n2\n3\n")
    environment = {**os.environ, "STRAGGLER_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return straggler(*words, cwd=tmp_path, env=environment)

    waiting = ["submit", "nap", "numbers.txt", "--batch-id", "late", "--queue", "lonely", "--deadline", "50"]
    assert run(*waiting).returncode == 0
    for name, (words, facts) in WALK.items():
        done = run(name, *words, "--json")
        told = json.loads(done.stdout)
        assert facts <= set(told), (name, told)
        assert "Traceback" not in done.stderr, done.stderr


def test_check_of_a_host_without_a_worker_tells_so_as_json(redis_url: str) -> None:
    environment = {**os.environ, "STRAGGLER_REDIS_URL": redis_url}
    done = straggler("worker", "--check", "--json", env=environment)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["healthy"], told["queue"], told["says"]) == (False, "default", None)
    assert "no worker" in done.stderr


def test_json_of_a_worker_that_is_to_run_is_refused() -> None:
    done = straggler("worker", "--json")
    assert done.returncode == 2
    assert "only --check prints facts" in done.stderr
