"""What a job says of itself: kept as it was said last, in this process or in memory that two share."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from protocol.errors import OptionError
from tests.conftest import ROOT
from workers.calling.reports import LONGEST_NOTE, OwnReport, SharedReport, check, make_file


@pytest.fixture
def shared() -> Iterator[SharedReport]:
    report = SharedReport(make_file())
    report.clear()
    yield report
    report.close()


@pytest.fixture(params=["own", "shared"])
def report(request: pytest.FixtureRequest, shared: SharedReport) -> OwnReport | SharedReport:
    return OwnReport() if request.param == "own" else shared


def test_nothing_is_said_at_first(report: OwnReport | SharedReport) -> None:
    assert (report.beaten_at, report.progress, report.note) == (0.0, None, "")


def test_what_a_heartbeat_leaves_out_stays_as_it_was(report: OwnReport | SharedReport) -> None:
    report.say(0.25, "page 1")
    report.say(None, "")
    assert (report.progress, report.note) == (0.25, "page 1")
    report.say(0.5, "")
    report.say(None, "pagé 2")
    assert (report.progress, report.note) == (0.5, "pagé 2")
    report.say(0, "p")
    assert (report.progress, report.note) == (0, "p")


def test_each_heartbeat_is_heard_at_its_time(report: OwnReport | SharedReport) -> None:
    report.say(None, "")
    first = report.beaten_at
    assert 0 < first <= time.monotonic()
    report.say(None, "")
    assert first <= report.beaten_at <= time.monotonic()


def test_a_note_is_cut_at_its_limit(report: OwnReport | SharedReport) -> None:
    report.say(None, "€𝄞" * LONGEST_NOTE)
    assert report.note == ("€𝄞" * LONGEST_NOTE)[:LONGEST_NOTE]


def test_a_cleared_report_says_nothing_of_the_last_job(shared: SharedReport) -> None:
    shared.say(1, "the last page")
    shared.clear()
    assert (shared.beaten_at, shared.progress, shared.note) == (0.0, None, "")


def test_another_process_says_it_here(shared: SharedReport) -> None:
    descriptor = make_file()
    mine = SharedReport(os.dup(descriptor))
    mine.clear()
    code = (
        "import sys; from workers.calling.reports import SharedReport;"
        "SharedReport(int(sys.argv[1])).say(0.75, 'from afar')"
    )
    subprocess.run([sys.executable, "-c", code, str(descriptor)], pass_fds=[descriptor], cwd=ROOT, check=True)
    os.close(descriptor)
    assert (mine.progress, mine.note) == (0.75, "from afar")
    assert 0 < mine.beaten_at <= time.monotonic()
    mine.close()


def test_there_is_a_file_where_memory_has_none_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    report = SharedReport(make_file())
    report.say(0.5, "x")
    assert (report.progress, report.note) == (0.5, "x")
    report.close()


@pytest.mark.parametrize("progress", [0, 0.0, 0.5, 1, 1.0, None, True])
def test_progress_from_0_to_1_is_taken(progress: Any) -> None:
    check(progress, "")


@pytest.mark.parametrize("progress", [-0.1, 1.0001, 40, math.nan, math.inf, "0.5", "half", b"1", [0.5]])
def test_any_other_progress_is_refused_with_its_value(progress: Any) -> None:
    with pytest.raises(OptionError, match="from 0 to 1") as raised:
        check(progress, "")
    assert repr(progress) in str(raised.value)


@pytest.mark.parametrize("note", [None, 3, b"page"])
def test_a_note_that_is_no_text_is_refused(note: Any) -> None:
    with pytest.raises(OptionError, match=r"heartbeat\(note="):
        check(None, note)
