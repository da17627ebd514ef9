"""What is decided about a batch after its submission, and how its workers hear of it.

The channel `straggler:control` carries hints only: "look at this batch". The decisions stand in the batch's keys (see
`scripts/orders.lua`), so a hint that is lost costs seconds and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json


@dataclass(frozen=True, slots=True)
class Orders:
    """What was decided for a chunk's jobs.

    Args:
        version: The number of the last decision by then, as Redis numbers them.
        deadline: The batch's, Unix s, if it has one.
        stopped: Why no more of its jobs start; None if they do.
        cancelled_all: Why all its jobs are cancelled, those that run, too; None if they are not.
        cancelled: Index of each single job that is cancelled, and why.
    """

    version: bytes
    deadline: float | None
    stopped: str | None
    cancelled_all: str | None
    cancelled: dict[int, str]

    def why_not_to_run(self, index: int) -> str | None:
        """Say why a job that runs is cancelled; None if it is not."""
        return self.cancelled.get(index, self.cancelled_all)

    def why_not_to_start(self, index: int) -> str | None:
        """Say why a job that has not started never will; None if it may."""
        return self.cancelled.get(index, self.stopped)


def read_orders(reply: Sequence[Any] | None) -> Orders | None:
    """Read what orders.lua returned; None where nothing (new) was decided."""
    if not reply:
        return None
    version, deadline, stopped, cancelled_all, *cancelled = reply
    pairs = zip(cancelled[::2], cancelled[1::2], strict=True)
    return Orders(
        version,
        None if deadline is None else _number(deadline),
        _text(stopped),
        _text(cancelled_all),
        {int(index): reason.decode(errors="replace") for index, reason in pairs},
    )


def read_hint(data: bytes) -> str | None:
    """Read which batch a message on the channel points to; None if it is no hint of ours."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(from_json(data)["batch"])
    return None


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")


def _number(data: bytes) -> float | None:
    with contextlib.suppress(ValueError):
        return float(data)
    return None
