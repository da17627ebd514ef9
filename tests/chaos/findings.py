"""What was found: one line each, naming the rule that was broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Args:
        rule: Which rule it breaks.
        text: Batch, job and what was seen.
    """

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


class Findings:
    """Gather findings, and say each as it comes.

    Args:
        say: Prints a line.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._found: list[Finding] = []

    def add(self, rule: str, text: str) -> None:
        """Take one, and say it."""
        self._found.append(Finding(rule, text))
        self._say(f"FINDING {rule}: {text}")

    def extend(self, found: Iterable[Finding]) -> None:
        """Take many; they are said at the end."""
        self._found.extend(found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
