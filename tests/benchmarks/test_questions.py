"""What single questions read from their measurements, and that whatever they start ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as run
from benchmarks import kinds, server
from benchmarks.figures import Answer
from benchmarks.goals import GOALS
from benchmarks.harness import Effort
from benchmarks.kinds import KINDS, PLAIN
from benchmarks.plots import draw_all
from benchmarks.results import Outcome
from benchmarks.scheduling import CONCURRENCY, SLOTS, filled, shares
from producer.cutting import cut
from protocol.chunks import Calls, decode_chunk
from straggler import JobSpec, SuccessResult
from tests.conftest import until


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or but waits to be noticed by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_a_worker_is_as_full_as_its_slots_are_on_average() -> None:
    assert filled([(0.0, 1.0), (0.5, 1.0)], 0.0, 1.0, slots=2) == pytest.approx(0.75)
    assert filled([(-1.0, 2.0)], 0.0, 1.0, slots=1) == pytest.approx(1.0)


def test_the_emptier_worker_counts_while_jobs_are_left() -> None:
    def result(worker: str, index: int, start: float) -> SuccessResult[None]:
        return SuccessResult(
            job_id=f"b:{index}", index=index, function="nap", worker=worker,
            started_at=start, finished_at=start + 1.0, value=None,
        )  # fmt: skip

    first = [result(f"w{number % 2}", number, 100.0) for number in range(SLOTS)]
    # One worker goes on at once with all of its slots, the other with half of them.
    second = [result("w0", number, 101.0) for number in range(CONCURRENCY)]
    second += [result("w1", number, 101.0) for number in range(CONCURRENCY // 2)]
    last = [result("w0", number, 102.0) for number in range(CONCURRENCY)]
    fill, apart = shares([*first, *second, *last])
    assert fill == pytest.approx(0.75)
    assert apart == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_jobs_travels_as_rows_and_is_what_it_is_called(kind: str) -> None:
    async def first() -> Sequence[JobSpec[Any]]:
        async for chunk in cut(KINDS[kind](20), 1 << 20):
            return decode_chunk(0, chunk.encode(), "")
        raise AssertionError

    jobs = asyncio.run(first())
    assert (type(jobs), len(jobs)) == (Calls, 20)
    assert len({job.key for job in jobs}) == (20 if "a key" in kind else 1)
    assert len({job.timeout for job in jobs}) == (20 if "timeout each" in kind else 1)
    assert len({job.function for job in jobs}) == (2 if "two functions" in kind else 1)


def test_kinds_are_measured_beside_plain_rows_of_the_same_round() -> None:
    times = {kind: [2.0, 4.0] for kind in KINDS} | {PLAIN: [1.0, 3.0]}
    row = kinds._row("keywords", times, times, 100)
    assert row == {
        "jobs": "keywords", "`submit` alone jobs/s": "33", "of it, to plain rows": "0.62", "end to end jobs/s": "33",
        "to plain rows": "0.62",
    }  # fmt: skip
    assert {goal.figure for goal in GOALS if goal.figure.startswith("kinds")} <= {
        f"kinds: {name}" for name in kinds.figures_of(times)
    }


def test_commands_are_told_from_those_of_scripts() -> None:
    sent = '1764000000.1 [0 unix:/tmp/redis.sock] "EVALSHA" "abc" "1"'
    inside = '1764000000.1 [0 lua] "hget" "key"'
    assert [bool(server._SENT.search(line)) for line in (sent, inside, "OK")] == [True, False, False]


def test_effort_chooses_sizes() -> None:
    assert [Effort(size).pick(1, 2, 3) for size in ("quick", "normal", "full")] == [1, 2, 3]
    assert Effort().runs >= 5


def test_a_question_that_fails_or_never_ends_is_an_outcome_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "fails.py").write_text("raise SystemExit('no such thing')")
    (package / "hangs.py").write_text(
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(run, "HERE", package)
    monkeypatch.setattr(run, "QUESTIONS", {"fails": 30, "hangs": 3})
    failed, hung = run.ask("fails", "normal"), run.ask("hangs", "normal")
    assert failed.answer is None
    assert failed.problem == "exit code 1: no such thing"
    assert hung.problem.startswith("not at its end after 3 s")
    child = int((tmp_path / "child").read_text())
    asyncio.run(until(lambda: has_ended(child)))


def test_each_picture_is_drawn_for_light_and_dark_and_the_same_each_time(tmp_path: Path) -> None:
    answers = {
        "beside_peers": Answer("", {"no-op jobs": "10,000"}, [], {
            "straggler jobs/s": 5e4, "arq jobs/s": 1700.0, "straggler p50 ms": 1.0, "arq p50 ms": 6.0,
        }),
        "stragglers": Answer("", {}, [], {"picture jobs": 4.0, "picture hanging": 1.0}, {
            "a timeout of 1 s": [[0.0, 0.0], [2.0, 3.0]], "no timeout": [[0.0, 0.0], [2.0, 1.0]],
        }),
        "growth": Answer("", {}, [], {"largest": 1e4}, {
            "µs a job": [[1e3, 40.0], [1e4, 20.0]], "producer MiB": [[1e3, 1.0], [1e4, 2.0]],
            "worker MiB": [[1e3, 0.0], [1e4, -0.5]],
        }),
    }  # fmt: skip
    outcomes = {"3.11": {question: Outcome("", {}, answer) for question, answer in answers.items()}}
    written = draw_all(outcomes, tmp_path)
    assert {path.name for path in written} == {
        f"{name}-{theme}.svg"
        for name in ("throughput", "latency", "stragglers", "growth")
        for theme in ("light", "dark")
    }
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in draw_all(outcomes, tmp_path)] == first


def test_a_picture_that_nothing_was_measured_for_is_not_drawn(tmp_path: Path) -> None:
    assert draw_all({"3.11": {"growth": Outcome("", {}, None, "exit code 1")}}, tmp_path) == []


def test_unknown_questions_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "troughput"])
    with pytest.raises(SystemExit):
        run.main()
    assert "no question troughput: there are throughput, kinds, latency" in capsys.readouterr().err
