"""The tables of `top`, and the screen of a batch that is watched."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType

from producer.overview.floor import QueueState, WorkerState
from producer.pace import Pace
from producer.pictures.summary import Tally
from producer.progress import Scene
from protocol.batches import BatchStatus
from protocol.running import RunningJob
from straggler.commands.board import draw_batches, draw_queues, draw_workers
from straggler.commands.watching import draw


def drawn(what: RenderableType, width: int = 120) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def batch(**fields: Any) -> BatchStatus:
    about = {"batch_id": "b", "queue": "q", "total": 1000, "closed": True, "created_at": 100.0}
    return BatchStatus(**{**about, **fields})


def test_batch_has_a_bar_in_which_every_kind_of_result_is_seen() -> None:
    _, line = drawn(draw_batches([batch(success=990, timeout=1, failure=1)], {}, 160.0))
    assert "█" * 20 in line
    assert line.split()[:3] == ["b", "60", "s"]
    _, line = drawn(draw_batches([batch(success=500, taken=600)], {}, 400.0))
    assert "██████████░░░░░░░░░░" in line
    assert line.split()[-5:] == ["500", "1,000", "100", "-", "-"]


def test_batch_that_goes_on_has_a_rate_and_a_time_left() -> None:
    pace = Pace()
    pace.see(0, 0.0)
    pace.see(500, 5.0)
    _, line = drawn(draw_batches([batch(success=500)], {"b": pace}, 105.0))
    assert line.endswith("100 a second   5 s")
    _, line = drawn(draw_batches([batch(success=1000, finished_at=107.5)], {"b": pace}, 110.0))
    assert "done in 7.50 s" in line
    assert line.split()[-2:] == ["-", "-"]


def test_workers_that_say_nothing_of_themselves_are_there_all_the_same() -> None:
    quiet = WorkerState(worker_id="w1", queue="q", seen_at=95.0)
    told = WorkerState(
        worker_id="w2", queue="q", seen_at=99.0, slots=20, running=5, abandoned=2, loop_lag=0.25, memory=50 << 20
    )
    lines = drawn(draw_workers([QueueState("q", 3, 2, 1.25, [quiet, told])], 100.0))
    assert lines[1].split() == ["w1", "q", "░░░░░░░░░░", "0", "of", "0", "0", "-", "-", "5", "s", "ago"]
    assert lines[2].split()[2:] == ["███░░░░░░░", "5", "of", "20", "2", "250", "ms", "50", "MiB", "1", "s", "ago"]
    [_, line] = drawn(draw_queues([QueueState("q", 3, 2, 1.25, [quiet, told])]))
    assert line.split() == ["q", "2", "20", "5", "3", "1.25", "s"]


def test_screen_says_how_long_the_last_jobs_may_take() -> None:
    tally, pace = Tally(), Pace()
    tally.counts.update(success=8, failure=1)
    pace.see(0, 0.0)
    pace.see(9, 3.0)
    late = RunningJob(batch_id="b", index=7, function="f", started_at=1.0, limit=60.0, elapsed=12.0, worker="w")
    lines = drawn(draw(tally, Scene(10, 1, 1, (late,)), pace, 3.0))
    assert lines[0] == "9 of 10 done · 3.00 s · 3.0 a second · 48 s left at most"
    assert lines[-1].split() == ["job", "7", "━" * 3 + "─" * 12, "12.00", "s", "of", "1", "min", "0", "s", "f", "w"]
    lines = drawn(draw(tally, Scene(30, 1, None, (late,)), pace, 3.0))
    assert lines[0].endswith(" · 7 s left"), "others wait, too"
    lines = drawn(draw(tally, Scene(11, 2, 1, (late,)), pace, 3.0))
    assert lines[0].endswith(" · 1 s left"), "one is with a worker, and waits there for a process"


def test_screen_of_a_batch_that_has_just_begun_is_short() -> None:
    assert drawn(draw(Tally(), Scene(), Pace(), 0.0))[0] == "0 done · 0 ms"
