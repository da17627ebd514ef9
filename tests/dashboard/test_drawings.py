"""The task stream's lanes, and what is drawn of a batch."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard import lanes as lanes_module
from dashboard.drawings import describe, histogram, stack, stream
from dashboard.lanes import Lanes
from producer.pictures.durations import Histogram
from producer.pictures.taskstream import COLUMNS
from protocol.batches import BatchStatus


def status(**given: Any) -> BatchStatus:
    return BatchStatus(**{"batch_id": "b", "queue": "default", "closed": True, "created_at": 0.0, "total": 0, **given})


def busy(lanes: Lanes) -> float:
    return sum(sum(row.cells) for row in lanes.rows())


def test_jobs_that_overlap_have_lanes_of_their_own_and_others_share_one() -> None:
    lanes = Lanes(0.0)
    lanes.add("w", 0.0, 1.0, 0)
    lanes.add("w", 1.0, 2.0, 0)
    lanes.add("w", 0.5, 2.5, 0)
    lanes.add("w", 2.0, 3.0, 0)
    assert len(lanes.rows()) == 2


def test_lanes_are_no_more_than_ran_at_once_whatever_the_order_of_their_ends() -> None:
    lanes, slots = Lanes(0.0), [0.0] * 7
    runs = []
    for number in range(2000):
        slot = number * 31 % 7
        length = 0.1 + (number * 17 % 23) / 10
        runs.append((slots[slot], slots[slot] + length))
        slots[slot] += length
    for start, end in sorted(runs, key=lambda run: run[1]):
        lanes.add("w", start, end, 0)
    assert len(lanes.rows()) == 7


def test_time_spent_is_kept_when_columns_become_coarser() -> None:
    lanes = Lanes(0.0)
    lanes.add("w", 0.0, 0.4, 0)
    fine = lanes.width
    lanes.add("w", 1000.0, 5000.0, 1)
    assert lanes.width > fine
    assert lanes.end < lanes.width * COLUMNS
    assert busy(lanes) == pytest.approx(4000.4, rel=1e-4)


def test_rows_of_a_worker_stand_together() -> None:
    lanes = Lanes(0.0)
    for worker in ("b", "a", "b", "a"):
        lanes.add(worker, 0.0, 1.0, 0)
    assert [row.worker for row in lanes.rows()] == ["a", "a", "b", "b"]


def test_runs_taken_in_together_fill_the_cells_that_they_fill_alone() -> None:
    single, at_once = Lanes(0.0), Lanes(0.0)
    # One after the other, within a column and beyond it; two at a time; one before time began, one that took none.
    starts = [0, 1000, 2000, 2500, 9000, 9000, 9100, 20_000, -5000, 30_000]
    took = [1000, 900, 500, 4000, 100, 200, 1000, 300_000, 6000, 0]
    for start, lasted in zip(starts, took, strict=True):
        single.add("w", 1.0 + start / 1e6, 1.0 + (start + lasted) / 1e6, 0)
    at_once.add_all("w", 1.0, starts, took, 0)
    assert at_once.width == single.width
    cells = [
        [sum(column) for column in zip(*(row.cells for row in lanes.rows()), strict=True)]
        for lanes in (single, at_once)
    ]
    assert cells[1] == pytest.approx(cells[0], abs=1e-6)
    at_once.add_all("w", 1.0, [], [], 0)
    assert len(at_once.rows()) <= len(single.rows())


def test_lanes_beyond_the_cap_share_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_MOST_ROWS", 4)
    lanes = Lanes(0.0)
    for number in range(20):
        lanes.add(f"w{number % 6}", 0.0, 1.0, 0)
    assert busy(lanes) == pytest.approx(20.0, rel=1e-3)
    assert {row.worker for row in lanes.rows()} <= {f"w{number}" for number in range(6)}


def test_times_before_the_batch_or_backwards_are_taken_as_none() -> None:
    lanes = Lanes(100.0)
    lanes.add("w", 99.0, 98.0, 0)
    assert busy(lanes) > 0
    assert lanes.end == 0


def test_stream_shows_what_did_not_succeed() -> None:
    lanes = Lanes(0.0)
    lanes.add("w", 0.0, 1.0, 0)
    lanes.add("w", 1.0, 2.0, 2)
    drawn = stream(lanes)
    assert {mark for mark, _ in drawn.outlines} == {"success", "failure"}
    assert drawn.workers == [("w", 0, 1)]
    assert drawn.seconds >= 2


def test_stream_of_100000_jobs_on_512_slots_is_small() -> None:
    lanes = Lanes(0.0)
    for number in range(100_000):
        lanes.add(f"w{number % 4}", number / 512, number / 512 + 1, number * 7919 % 5)
    drawn = stream(lanes)
    assert drawn.rows <= 100  # 96, and one more for each worker at most
    assert sum(map(len, drawn.outlines.values())) < 300_000


def test_stream_of_nothing_has_no_rows() -> None:
    assert stream(Lanes(0.0)).rows == 0


def test_stack_shows_one_failure_among_a_million() -> None:
    parts = stack(status(total=1_000_000, success=999_999, failure=1, finished_at=1.0))
    assert [part.name for part in parts] == ["success", "failure"]
    assert parts[1].width > 2
    assert parts[0].width + parts[1].width == pytest.approx(1000, abs=0.1)


def test_stack_is_told_in_words() -> None:
    assert describe(status(total=5, taken=3, success=2)) == "5 jobs: 2 succeeded, 1 running, 2 queued"
    assert describe(status()) == "no jobs yet"


def test_histogram_bars_are_stacked_from_the_bottom() -> None:
    times = Histogram()
    for _ in range(3):
        times.add(1.0, "success")
    times.add(1.0, "failure")
    [bar] = [bar for bar in histogram(times) if bar.jobs]
    assert bar.pieces == [("success", 25.0, 75.0), ("failure", 0.0, 25.0)]
    assert histogram(Histogram()) == []
