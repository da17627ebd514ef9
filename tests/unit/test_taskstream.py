"""The picture of a batch over time: every job in it once, no two over one another, and never too much to draw."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from producer.pictures import taskstream
from producer.pictures.taskstream import Picture, TaskStream
from protocol.results import LostResult, SuccessResult


def stream(*spans: tuple[str, float, float, str]) -> TaskStream:
    made = TaskStream()
    for number, (worker, start, end, status) in enumerate(spans):
        made.put(worker, start, end, status, f"job {number}")
    return made


def many(count: int, workers: int = 3, slots: int = 4) -> TaskStream:
    """Make spans as full workers would: each slot one after the other, now and then a failure."""
    chance = random.Random(7)
    made = TaskStream()
    free = {(worker, slot): 1000.0 for worker in range(workers) for slot in range(slots)}
    for number in range(count):
        slot = min(free, key=free.__getitem__)
        start = free[slot]
        free[slot] = end = start + chance.lognormvariate(-3, 1)
        made.put(f"w{slot[0]}", start, end, "failure" if number % 40 == 0 else "success", f"job {number}")
    return made


def names(picture: Picture) -> Counter[str | None]:
    return Counter(cell.name for row in picture.rows for cell in row.cells)


def test_jobs_that_ran_at_the_same_time_have_slots_of_their_own() -> None:
    picture = stream(("w", 10, 12, "success"), ("w", 11, 13, "timeout"), ("w", 12, 14, "success")).picture()
    assert [(row.worker, row.first_slot, row.slots) for row in picture.rows] == [("w", 0, 1), ("w", 1, 1)]
    assert [[cell.name for cell in row.cells] for row in picture.rows] == [["job 0", "job 2"], ["job 1"]]
    [timeout] = picture.rows[1].cells
    assert (timeout.start, timeout.end, timeout.status, timeout.jobs) == (1, 3, "timeout", 1)
    assert (picture.begin, picture.end, picture.is_exact, picture.jobs) == (10, 14, True, 3)


def test_each_worker_has_rows_of_its_own_in_order() -> None:
    picture = stream(("b", 0, 1, "success"), ("a", 0, 1, "success"), ("b", 0, 1, "lost")).picture()
    assert [row.worker for row in picture.rows] == ["a", "b", "b"]


def test_few_jobs_are_drawn_one_by_one_none_over_another() -> None:
    picture = many(1500).picture()
    assert picture.is_exact
    assert len(picture.rows) == 12
    assert set(names(picture).values()) == {1}
    assert len(names(picture)) == 1500
    for row in picture.rows:
        assert all(left.end <= right.start + 1e-9 for left, right in pairwise(row.cells))


def test_many_jobs_are_drawn_as_sums_which_lose_no_job_and_no_time() -> None:
    made = many(20_000)
    picture = made.picture(columns=100)
    assert not picture.is_exact
    cells = [(row, cell) for row in picture.rows for cell in row.cells]
    assert sum(cell.jobs for _, cell in cells) == 20_000
    assert sum(cell.jobs for _, cell in cells if cell.status == "failure") == 500
    drawn = sum((cell.end - cell.start) * cell.share * row.slots for row, cell in cells)
    spent = sum(end - start for start, end in zip(made._start, made._end, strict=True))
    assert drawn == pytest.approx(spent, rel=0.001)
    assert len(cells) <= 100 * 2 * len(picture.rows)


def test_many_slots_share_rows_but_no_two_workers_do() -> None:
    picture = many(3000, workers=3, slots=50).picture(rows=20)
    assert len(picture.rows) <= 20 + 3
    assert {row.worker: sum(r.slots for r in picture.rows if r.worker == row.worker) for row in picture.rows} == {
        "w0": 50, "w1": 50, "w2": 50,
    }  # fmt: skip
    assert max(cell.share for row in picture.rows for cell in row.cells) <= 1


def test_names_are_kept_only_as_long_as_they_may_be_drawn() -> None:
    assert len(many(5000)._names) == taskstream.MOST_SPANS + 1


def test_job_that_never_started_has_no_span() -> None:
    made = TaskStream()
    common: dict[str, Any] = {"function": "f", "worker": "w", "finished_at": 5.0}
    made.add(SuccessResult(**common, job_id="b:0", index=0, started_at=4.0, value=1))
    made.add(LostResult(**common, job_id="b:1", index=1, reason="died"))
    assert len(made) == 1
    assert names(made.picture()) == {"job 0": 1}


def test_times_that_two_clocks_turn_round_are_a_moment() -> None:
    [row] = stream(("w", 5.0, 4.0, "success")).picture().rows
    assert row.cells[0].start == row.cells[0].end == 0.0


def test_empty_batch_is_an_empty_picture() -> None:
    assert TaskStream().picture().rows == []
