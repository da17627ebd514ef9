"""The clock of the silence, beside what else bounds a run."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.calling.reports import OwnReport
from workers.timing.silence import Silence


class SomeRun:
    """A run that started at 100, may run for 50 s and be silent for 10."""

    def __init__(self, process: Any = None) -> None:
        self.limit, self.phase, self.started, self.deadline = 50.0, "running", 100.0, 150.0
        self.is_stopping = False
        self.process = process
        self.said = OwnReport()
        self.chunk = SimpleNamespace(runner=SimpleNamespace(reports={self: self.said}))
        self.now: tuple[float, str, float] = (0.0, "", 0.0)

    def bound(self, limit: float, phase: str, when: float) -> None:
        self.now = (limit, phase, when)


def made(process: Any = None) -> tuple[SomeRun, Silence]:
    run = SomeRun(process)
    silence = Silence(cast("Any", run), 10.0)
    silence.begin()
    return run, silence


def test_the_silence_is_counted_from_the_start_and_from_each_heartbeat() -> None:
    run, silence = made()
    assert run.now == (10, "heartbeat", 110)
    run.said.beaten_at = 105.0
    silence.choose()
    assert run.now == (10, "heartbeat", 115)


def test_what_ends_sooner_bounds_the_run() -> None:
    run, silence = made()
    run.said.beaten_at = 145.0
    silence.choose()
    assert run.now == (50, "running", 150)


def test_who_could_not_be_heard_was_not_silent() -> None:
    run, silence = made()
    run.said.beaten_at = 105.0
    silence.postpone(7.0)
    silence.choose()
    assert run.now == (10, "heartbeat", 122)


def test_another_bound_takes_the_place_of_the_first() -> None:
    run, silence = made()
    run.said.beaten_at = 145.0
    run.deadline = 152.0
    assert silence.reclock(52.0, "batch") == 50
    silence.choose()
    assert run.now == (52, "batch", 152)


def test_a_run_that_is_being_stopped_has_its_grace_and_no_other_clock() -> None:
    run, silence = made()
    run.now = (1, "grace", 1)
    run.is_stopping = True
    silence.choose()
    assert run.now == (1, "grace", 1)


def test_a_process_that_imports_its_module_cannot_speak_yet() -> None:
    report = SimpleNamespace(begun_at=0.0)
    run, silence = made(SimpleNamespace(report=report))
    run.started = time.monotonic() - 100
    run.deadline = time.monotonic() + 100
    silence.choose()
    assert run.now[2] == pytest.approx(time.monotonic() + 10, abs=5)
    report.begun_at = time.monotonic() + 3
    silence.choose()
    assert run.now == (10, "heartbeat", report.begun_at + 10)
