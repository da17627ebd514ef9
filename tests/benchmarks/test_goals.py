"""The goals' table, and the results that it is made from."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import QUESTIONS
from benchmarks.figures import Answer
from benchmarks.goals import GOALS, Goal, goals_table, written
from benchmarks.results import Outcome, Outcomes, figures, load, markdown, save


def outcome(answer: Answer | None, problem: str = "") -> Outcome:
    return Outcome("2026-01-01 00:00 UTC, size normal", {"cores": 2}, answer, problem)


def kept(**numbers: float) -> Outcomes:
    answer = Answer("How fast", {"runs": 5}, [{"": "ours"}], numbers)
    return {"3.11": {"throughput": outcome(answer), "latency": outcome(None, "exit code 1: no such thing")}}


@pytest.mark.parametrize(
    ("value", "python", "met"), [(2.0, "3.11", True), (1.9, "3.11", False), (1.9, "3.13", True), (0.9, "3.13", False)]
)
def test_lower_limit_depends_on_the_python(value: float, python: str, met: bool) -> None:
    goal = Goal("speed", "fast", "throughput: ratio", at_least=2, at_least_on=("3.13", 1))
    assert goal.is_met(value, python) is met


def test_a_number_over_its_limit_is_missed_and_one_that_is_not_there_is_said_to_be_missing() -> None:
    goal = Goal("latency", "low", "latency: p50", at_most=3, unit=" ms")
    assert goal.cell({"latency: p50": 3.5}, "3.11") == "3.5 ms **missed**"
    assert goal.cell({"latency: p50": 3.0}, "3.11") == "3 ms met"
    assert goal.cell({}, "3.11") == "not measured"


def test_every_goal_asks_a_question_that_there_is() -> None:
    assert {goal.figure.partition(": ")[0] for goal in GOALS} <= set(QUESTIONS)
    assert all((goal.at_least is None) != (goal.at_most is None) for goal in GOALS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_a_module_that_measures(question: str) -> None:
    assert callable(import_module(f"benchmarks.{question}").measure)


def test_table_has_a_row_for_each_goal_and_a_column_for_each_python() -> None:
    both = kept(**{"ratio to gather": 1.5})
    both["3.13"] = both["3.11"]
    lines = goals_table(both).splitlines()
    assert lines[0] == "| what | goal | Python 3.11 | Python 3.13 |"
    assert len(lines) == 2 + len(GOALS)
    assert lines[2].endswith("| 1.5 x **missed** | 1.5 x met |")


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.0248, "0.0248"), (-1.5, "-1.5")]
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert written(value) == text


def test_results_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert load(path) == {}
    save(kept(ratio=1.5), path)
    assert load(path) == kept(ratio=1.5)
    assert figures(load(path)["3.11"]) == {"throughput: ratio": 1.5}


def test_a_question_that_went_wrong_is_shown_with_the_reason() -> None:
    text = markdown(kept(ratio=1.5), "the goals")
    assert "Not measured: exit code 1: no such thing" in text
    assert "## How fast" in text
    assert text.count("On: cores 2.") == 1
