"""The table of the zoo: what each misbehaving job must end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from straggler import job

LIMIT = 0.2
"""The jobs' timeout, s."""

GRACE = 0.2
"""Their time for cleanup, s."""

FOR_EVER = 60.0
"""Longer than any of this takes, s; what is left behind ends at last."""


@dataclass(frozen=True, slots=True)
class Row:
    """One misbehaving job, and what it must end in.

    Args:
        job: The job.
        status: Its result's.
        stopped: How it is stopped, where it times out.
        error: The last part of its error's type, where it fails.
        blocks: Whether it holds the event loop, so that its neighbours wait meanwhile.
        crashes: Whether its worker process ends under it: it holds what runs there, and starts again.
        also: How else it may be stopped, where a busy machine decides.
        needs: Why it needs another process to end it, if it does: the embedded mode has none.
    """

    job: Any
    status: str
    stopped: str | None = None
    error: str | None = None
    blocks: bool = False
    crashes: bool = False
    also: str = ""
    needs: str = ""

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.job.name)

    @property
    def expected(self) -> str:
        """What it must end in, as `outcome` tells it of a result."""
        return " ".join(word for word in (self.status, self.stopped or self.error) if word)

    @property
    def allowed(self) -> set[str]:
        """All that it may end in."""
        return {self.expected, f"{self.status} {self.also}"} if self.also else {self.expected}


ROWS: dict[str, Row] = {}


def animal(
    status: str,
    stopped: str | None = None,
    *,
    error: str | None = None,
    blocks: bool = False,
    crashes: bool = False,
    also: str = "",
    needs: str = "",
    **options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a job, and write down what it must end in; `options` are those of `@job`."""

    def register(function: Callable[..., Any]) -> Any:
        made = job(**options)(function)
        ROWS[made.name] = Row(made, status, stopped, error, blocks, crashes, also, needs)
        return made

    return register


def outcome(result: Any) -> str:
    """Tell a result as `Row.expected` tells it."""
    own = getattr(result, "stopped", None) or getattr(result, "error_type", "").rpartition(".")[2]
    return " ".join(word for word in (result.status, own) if word)
