"""Progress where there is no terminal: few lines, each of them whole; and what a bar is told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from producer.progress import LiveProgress, PlainProgress, make_progress
from producer.summary import Tally


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
            shown.update(tally, 2000, 40)
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
        shown.update(tally, 2000, 40, workers)
    assert isinstance(console.file, io.StringIO)
    parts = console.file.getvalue().strip().split(" · ")
    assert parts[4:-1] == ([told] if told else [])


def test_log_tells_how_far_a_file_is(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("producer.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO())
    with make_progress(console, live=False) as shown:
        shown.count("rows checked", 1000)
        now += 11
        shown.count("rows checked", 20_000)
        now += 11
        shown.update(tally, None)
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
        shown.update(tally, 2000, 40)
        tally.counts["success"] += 1
        shown.update(tally, 2000, 40)
        assert (task.completed, task.total) == (1203, 2000)
        assert task.fields["counts"] == "[green]1,200 succeeded[/] [yellow]3 timed out[/] [cyan]40 running[/]"
        now += 0.2
        shown.update(tally, 2000, 40, 3)
        assert task.fields["counts"].endswith("[cyan]40 running[/] [dim]3 workers[/]")
        now += 0.2
        shown.update(tally, 2000, 0, 0)
        assert task.fields["counts"].endswith("[red]no workers[/]")
        assert task.completed == 1204
        assert "running" not in task.fields["counts"]
