"""What was measured, kept: `results.json` holds the newest answers for each Python, `results.md` shows them.

Answers are kept one by one: a run of one question replaces that one, and leaves the others as they were.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figures import Answer
from benchmarks.harness import HERE, machine

JSON = HERE / "results.json"
MARKDOWN = HERE / "results.md"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question's newest answer, or why there is none.

    Args:
        measured: When, how much (`Effort.size`), and how busy the machine was with other things.
        machine: On what.
        answer: What was found; None if it went wrong.
        problem: What went wrong; empty if nothing did.
    """

    measured: str
    machine: dict[str, Any]
    answer: Answer | None
    problem: str = ""

    @classmethod
    def now(cls, size: str, load: float, answer: Answer | None, problem: str = "") -> Outcome:
        """Note that this was found now, on this machine, which had so much to do before."""
        when = datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
        return cls(f"{when}, size {size}, load before {load:.1f}", machine(), answer, problem)


# Python's version, as 3.11 -> question -> its outcome.
Outcomes = dict[str, dict[str, Outcome]]


def this_python() -> str:
    """Tell under which version the answers of this Python are kept."""
    return ".".join(platform.python_version_tuple()[:2])


def load(path: Path = JSON) -> Outcomes:
    """Read what is kept; nothing if there is no such file."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    return {
        python: {question: _outcome(data) for question, data in questions.items()} for python, questions in kept.items()
    }


def _outcome(data: Mapping[str, Any]) -> Outcome:
    answer = None if data["answer"] is None else Answer.from_dict(data["answer"])
    return Outcome(data["measured"], data["machine"], answer, data["problem"])


def save(outcomes: Outcomes, path: Path = JSON) -> None:
    """Write down all that is known."""
    kept = {
        python: {
            question: {
                "measured": one.measured,
                "machine": one.machine,
                "answer": None if one.answer is None else one.answer.to_dict(),
                "problem": one.problem,
            }
            for question, one in questions.items()
        }
        for python, questions in sorted(outcomes.items())
    }
    path.write_text(json.dumps(kept, indent=1) + "\n")


def figures(questions: Mapping[str, Outcome]) -> dict[str, float]:
    """Collect all figures of one Python, as `question: name`."""
    return {
        f"{question}: {name}": value
        for question, one in questions.items()
        if one.answer is not None
        for name, value in one.answer.figures.items()
    }


def markdown(outcomes: Outcomes, goals: str) -> str:
    """Write down everything for people: the goals first, then the answers, each with when and where it was measured."""
    parts = [
        "# Benchmarks, as measured",
        "Made by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) says what each measures and how.",
        "## Goals",
        goals,
    ]
    for python, questions in sorted(outcomes.items()):
        places = {_said(one.machine) for one in questions.values()}
        parts += [f"# Python {python}", *([f"On: {place}." for place in sorted(places)] if len(places) == 1 else [])]
        parts += [_section(question, one, tell_machine=len(places) > 1) for question, one in questions.items()]
    return "\n\n".join(parts).rstrip() + "\n"


def _section(question: str, one: Outcome, *, tell_machine: bool) -> str:
    place = f"`python -m benchmarks.{question}`, {one.measured}{f'; {_said(one.machine)}' if tell_machine else ''}."
    if one.answer is None:
        return f"## {question}\n\nNot measured: {one.problem}\n\n{place}"
    return f"{one.answer.markdown()}\n{place}"


def _said(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())
