"""Progress where there is no terminal: few lines, each of them whole; and what a bar is told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from producer.pace import Pace
from producer.pictures.durations import rate_words
from producer.pictures.summary import Tally
from producer.progress import LiveProgress, PlainProgress, Scene, make_progress
from protocol.running import RunningJob


@pytest.fixture
def tally() -> Tally:
    tally = Tally()
    tally.counts.update(success=1200, timeout=3)
    return tally


def test_log_gets_a_line_now_and_then_not_one_for_each_result(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=20)
    with make_progress(console, live=False) as shown:
        assert isinstance(shown, PlainProgress)
        for _ in range(250):
            now += 0.1
            shown.update(tally, Scene(2000, 40))
    assert isinstance(console.file, io.StringIO)
    [first, second] = console.file.getvalue().splitlines()
    assert first.startswith("1,203 of 2,000 done · 1,200 succeeded · 3 timed out · 40 running · 10.")
    assert " · 20." in second


@pytest.mark.parametrize(("workers", "told"), [(0, "no workers"), (1, "1 worker"), (12, "12 workers"), (None, "")])
def test_log_tells_how_many_workers_are_alive(
    tally: Tally, monkeypatch: pytest.MonkeyPatch, workers: int | None, told: str
) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO())
    with make_progress(console, live=False) as shown:
        now += 11
        shown.update(tally, Scene(2000, 40, workers))
    assert isinstance(console.file, io.StringIO)
    parts = console.file.getvalue().strip().split(" · ")
    assert parts[4:5] == [told or "11.00 s"]


def test_log_tells_how_far_a_file_is(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO())
    with make_progress(console, live=False) as shown:
        shown.count("rows checked", 1000)
        now += 11
        shown.count("rows checked", 20_000)
        now += 11
        shown.update(tally, Scene())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[0] == "20,000 rows checked"
    assert console.file.getvalue().splitlines()[1].startswith("1,203 done · ")


def test_bar_is_left_as_it_is_by_results_that_come_too_fast_to_read(
    tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    with make_progress(Console(file=io.StringIO(), force_terminal=True), live=True) as shown:
        assert isinstance(shown, LiveProgress)
        assert not shown._bar.live.is_started
        shown.count("jobs sent", 7)
        [task] = shown._bar.tasks
        assert (task.description, task.completed, task.total) == ("jobs sent", 7, None)
        shown.update(tally, Scene(2000, 40))
        tally.counts["success"] += 1
        shown.update(tally, Scene(2000, 40))
        assert (task.completed, task.total) == (1203, 2000)
        assert shown_lines(shown) == ["  1,200 succeeded · 3 timed out · 40 running"]
        now += 0.2
        shown.update(tally, Scene(2000, 40, 3, (SLOW, OLD)))
        assert shown_lines(shown) == [
            "  1,201 succeeded · 3 timed out · 40 running · 3 workers",
            "  at work  http://slow 2.50 s of 3.00 s, 40 %, page 4",
            "           job 7 1.50 s of 3.00 s",
        ]
        now += 0.2
        shown.update(tally, Scene(2000, 0, 0))
        assert shown_lines(shown) == ["  1,201 succeeded · 3 timed out · no workers"]
        assert task.completed == 1204


SLOW = RunningJob(
    batch_id="b",
    index=3,
    key="http://slow",
    function="f",
    started_at=1,
    limit=3,
    progress=0.4,
    note="page 4",
    elapsed=2.5,
)
OLD = RunningJob(batch_id="b", index=7, function="f", started_at=2, limit=3, elapsed=1.5)


def shown_lines(shown: LiveProgress) -> list[str]:
    return [line.plain for line in shown._bar.lines]


def test_log_and_bar_tell_the_rate_and_the_time_left(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO())
    with make_progress(console, live=False) as log, LiveProgress(Console(file=io.StringIO())) as bar:
        for _ in range(50):
            now += 0.3
            tally.counts["success"] += 10
            for shown in (log, bar):
                shown.update(tally, Scene(2000, 40, 1, (SLOW,)))
        assert bar._bar.tasks[0].fields["speed"] == "33 a second · 9 s left"
    assert isinstance(console.file, io.StringIO)
    [line] = console.file.getvalue().splitlines()
    assert " · 33 a second · " in line
    assert line.endswith(" left · slowest: http://slow 2.50 s of 3.00 s, 40 %, page 4")


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1240.2, "1,240 a second"),
        (2.54, "2.5 a second"),
        (0.33, "20 a minute"),
        (0.01, "0.6 a minute"),
        (0, "0 a second"),
    ],
)
def test_rates_read_well(rate: float, words: str) -> None:
    assert rate_words(rate) == words


def test_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    assert (pace.see(0, 0.0), pace.left(10)) == (None, None)
    for moment in range(1, 41):
        pace.see(moment * 100, moment)
    for moment in range(41, 71):
        pace.see(4000, moment)
    assert (pace.rate, pace.left(10)) == (0.0, None)
    pace.see(4150, 71)
    assert pace.rate == pytest.approx(150 / 15, rel=0.1)
