"""What the harness itself must get right, besides its checker."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.chaos import collect, plan
from tests.chaos.findings import Findings
from tests.chaos.programs import Program, children
from tests.conftest import until


def test_a_plan_is_drawn_from_its_seed_and_read_as_it_was_written(tmp_path: Path) -> None:
    drawn, again = ([plan.draw(rng, "b1", 500, 2.5) for _ in range(40)] for rng in (random.Random(3), random.Random(3)))
    assert drawn == again
    assert drawn[0].kinds.count("s") > 350
    assert {planned.adding for planned in drawn} == {"", "keyed", "plain"}
    assert {(planned.is_cancelled, planned.cancels) for planned in drawn} == {
        (True, True),
        (False, True),
        (False, False),
    }
    for planned in drawn:
        plan.append(tmp_path / "plan.jsonl", planned)
    assert plan.read(tmp_path / "plan.jsonl") == drawn


def test_jobs_of_a_kind_are_spread_over_its_times() -> None:
    kind = plan.KINDS["m"]
    seconds = [kind.seconds(index) for index in range(1000)]
    assert min(seconds) >= kind.shortest
    assert max(seconds) <= kind.longest
    assert abs(sum(seconds) / 1000 - (kind.shortest + kind.longest) / 2) < 0.1


def test_a_collector_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "b1.jsonl"
    whole = "".join(json.dumps({"cursor": cursor}) + "\n" for cursor in ("1-0", "2-0+3"))
    path.write_text(whole + '{"cursor": "2-0')

    assert collect._mend(path) == "2-0+3"
    assert path.read_text() == whole


def test_a_collector_whose_first_line_was_torn_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "b1.jsonl"
    path.write_text('{"cursor"')

    assert collect._mend(path) is None
    assert path.read_text() == ""


async def test_a_program_tells_its_last_words_and_its_end(tmp_path: Path) -> None:
    program = Program("json", ["json.tool", str(tmp_path / "none")], tmp_path / "log", {})
    await program.start()

    assert await program.wait() != 0
    assert "No such file" in program.last_words()
    assert not program.was_killed


async def test_a_program_that_is_killed_knows_it(tmp_path: Path) -> None:
    program = Program("server", ["http.server", "--bind", "127.0.0.1", "0"], tmp_path / "log", {})
    await program.start()
    assert program.is_running

    program.kill()

    assert await program.wait() == -signal.SIGKILL
    assert program.was_killed


async def test_children_are_found_by_their_command_line() -> None:
    with subprocess.Popen(["sleep", "63.5"]) as child:  # noqa: S607  # any sleep will do
        try:
            await until(lambda: child.pid in children(os.getpid(), "63.5"))  # it has one a moment after it began
            assert child.pid not in children(os.getpid(), "63.6")
        finally:
            child.kill()


async def test_a_program_that_ends_silently_is_not_waited_for(tmp_path: Path) -> None:
    program = Program("version", ["this"], tmp_path / "log", {})
    await program.start()
    assert await program.until_says("Zen")
    assert not await program.until_says(f"never {sys.version}")
    await program.end()


def test_findings_are_said_as_they_come() -> None:
    said: list[str] = []
    findings = Findings(said.append)
    findings.add("died", "supervisor n1")
    assert said == ["FINDING died: supervisor n1"]
    assert [str(finding) for finding in findings] == ["died: supervisor n1"]
