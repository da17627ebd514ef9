"""The README says what was measured, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures import Answer
from benchmarks.readme import BEGIN, END, README, block, update
from benchmarks.results import Outcome, load


def test_readme_shows_the_newest_results() -> None:
    assert block(load()) in README.read_text()


def test_table_has_a_column_for_each_python_and_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    answer = Answer("", {}, [], {"jobs/s": 51234.0, "gather jobs/s": 25000.0, "ratio to gather": 2.05})
    one = Outcome("2026-01-02 10:00 UTC, size normal", {"cores": 2, "Python": "3.11.7"}, answer)
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update({"3.11": {"throughput": one}, "3.13": {"throughput": one}}, path)
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "|  | Python 3.11 | Python 3.13 |" in text
    assert "| the ratio of the two | 2.05 | 2.05 |" in text
    assert "embedded" not in text
    assert "2026-01-02" in text
    assert "<picture>" not in text


def test_a_readme_without_marks_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("nothing here")
    with pytest.raises(ValueError, match=r"README\.md has no <!-- benchmarks: begin"):
        update({}, path)
    assert path.read_text() == "nothing here"
