"""Medians, percentiles, ratios of pairs; tables and answers as Markdown and JSON."""

from __future__ import annotations

import json

import pytest

from benchmarks.figures import Answer, median_ratio, percentile, table, thinned


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)], ids=["least", "half", "99th", "most"]
)
def test_percentile_is_one_of_the_measurements(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_ratio_is_taken_pair_by_pair() -> None:
    # A machine that is twice as slow in one pair is so for both sides of it.
    assert median_ratio([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == 2.0


def test_ratio_of_uneven_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        median_ratio([1.0, 2.0], [1.0])


def test_table_escapes_bars_and_keeps_the_columns_order() -> None:
    assert table([{"b": "x|y", "a": 1}, {"b": "z", "a": 2}]).splitlines() == [
        "| b | a |",
        "| --- | --- |",
        "| x\\|y | 1 |",
        "| z | 2 |",
    ]


def test_table_of_nothing_is_nothing() -> None:
    assert table([]) == ""


def test_thinned_line_keeps_its_ends() -> None:
    points = [[float(number), 0.0] for number in range(1000)]
    kept = thinned(points, 10)
    assert len(kept) == 10
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:5], 10) == points[:5]


def test_answer_survives_json() -> None:
    answer = Answer(
        "How fast", {"runs": 5}, [{"": "ours", "s": "1.0"}], {"s": 1.0}, {"line": [[0.0, 1.0]]}, ["A note."]
    )
    assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_answer_reads_as_a_section() -> None:
    answer = Answer("How fast", {"runs": 5, "workers": 2}, [{"": "ours", "s": "1.0"}], {}, notes=["A note."])
    assert answer.markdown() == (
        "## How fast\n\nRuns 5, workers 2.\n\n|  | s |\n| --- | --- |\n| ours | 1.0 |\n\nA note.\n"
    )
