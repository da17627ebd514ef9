"""Durations: percentiles, bars to draw, and how they read."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from producer.pictures.durations import Durations, Histogram, seconds


def test_percentiles_are_within_one_percent() -> None:
    chance = random.Random(7)
    values = sorted(chance.lognormvariate(-3, 2) for _ in range(20_000))
    durations = Durations()
    for value in values:
        durations.add(value)
    for share in (0.01, 0.5, 0.95, 0.999):
        exact = values[max(0, -int(-share * len(values) // 1) - 1)]
        assert durations.percentile(share) == pytest.approx(exact, rel=0.011)
    assert durations.percentile(1.0) == durations.longest == values[-1]


def test_percentiles_of_one_duration_are_that_duration() -> None:
    durations = Durations()
    durations.add(0.123456)
    assert durations.percentile(0.5) == durations.percentile(0.95) == 0.123456


@pytest.mark.parametrize("value", [0.0, -1e-3, 1e-9, 1e7])
def test_extreme_durations_are_counted(value: float) -> None:
    durations = Durations()
    durations.add(value)
    assert durations.count == 1
    assert durations.percentile(0.5) <= max(value, 0.0)


def test_no_durations_have_no_percentile() -> None:
    assert Durations().percentile(0.5) == 0.0


# ---- histograms


def test_bars_hold_every_duration_once_and_lie_side_by_side() -> None:
    chance = random.Random(7)
    histogram = Histogram()
    for number in range(5000):
        histogram.add(chance.lognormvariate(-3, 1), "failure" if number % 50 == 0 else "success")
    bars = histogram.bars(30)
    assert 15 < len(bars) <= 30
    assert sum(bar.count for bar in bars) == 5000
    assert sum(bar.counts.get("failure", 0) for bar in bars) == 100
    assert all(left.high == right.low for left, right in pairwise(bars))
    assert bars[0].low <= histogram.all.shortest * 1.01
    assert bars[-1].high >= histogram.all.longest * 0.99


def test_bars_of_durations_that_are_all_alike_stand_in_the_middle() -> None:
    histogram = Histogram()
    for _ in range(9):
        histogram.add(0.25, "success")
    counts = [bar.count for bar in histogram.bars(30)]
    assert sum(counts) == max(counts) == 9
    assert 0.3 < counts.index(9) / len(counts) < 0.7


@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0])
def test_many_durations_counted_at_once_are_counted_as_one_by_one(spread: float) -> None:
    chance = random.Random(7)
    durations = [chance.lognormvariate(-3, spread) for _ in range(999)] + [-1.0, 0.0]
    single, at_once = Histogram(), Histogram()
    for duration in durations:
        single.add(duration, "success")
    at_once.add_all(Durations.of(durations[:500]), "success")
    at_once.add_all(Durations.of(durations[500:-2]), "success")
    at_once.add_all(Durations.of(durations[-2:]), "success")
    at_once.add_all(Durations.of([]), "success")
    assert at_once.bars() == single.bars()
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0):
        assert at_once.all.percentile(share) == single.all.percentile(share)
    assert (at_once.all.count, at_once.all.longest) == (single.all.count, single.all.longest)


def test_no_durations_have_no_bars() -> None:
    assert Histogram().bars() == []


def test_duration_below_zero_is_none() -> None:
    histogram = Histogram()
    histogram.add(-0.5, "success")
    assert histogram.all.shortest == 0.0


# ---- words


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0 ms"),
        (0.0000123, "12.3 us"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (59.99, "59.99 s"),
        (59.996, "1 min 0 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_well(duration: float, expected: str) -> None:
    assert seconds(duration) == expected
