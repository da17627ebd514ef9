"""What is submitted: the kinds of jobs, what each may end in, and the batches that are drawn from them.

Producer, jobs and checker all go by this table; it imports nothing of straggler.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

# Some batches are submitted with retries, and hold jobs that fail their first or second run.
RETRIES = 2
BACKOFF = 0.2
# Worker deaths that a job may survive before it is lost.
CRASHES = 2

GRACE = 0.5


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job.

    Args:
        function: The job's name.
        share: How many of all jobs, relative to the other kinds.
        status: What it must end in.
        limit: Its timeout, s.
        shortest: Its argument is at least this, s: how long it is busy, where it is.
        longest: And at most this.
    """

    function: str
    share: float
    status: str
    limit: float = 60.0
    shortest: float = 0.0
    longest: float = 0.0

    def seconds(self, index: int) -> float:
        """Tell how long the job at this index is busy, s: spread evenly, and the same for all who ask."""
        spread = (index * 2654435761 % 2**32) / 2**32  # Knuth's multiplicative hash
        return round(self.shortest + (self.longest - self.shortest) * spread, 4)


# The letter is the kind's name in a plan. One that ends its process (x, y) costs a worker's start, half a second.
KINDS = {
    "s": Kind("nap", 84.0, "success", shortest=0.001, longest=0.03),
    "m": Kind("doze", 5.0, "success", shortest=0.2, longest=3.0),
    "l": Kind("linger", 1.0, "success", shortest=4.0, longest=8.0),
    "v": Kind("stay", 0.6, "success", shortest=14.0, longest=22.0),
    "h": Kind("hang", 1.0, "timeout", limit=0.5, shortest=3600.0, longest=3600.0),
    "w": Kind("swallow", 0.2, "timeout", limit=0.3, shortest=1.5, longest=1.5),
    "f": Kind("fail", 3.0, "failure"),
    "p": Kind("compute", 3.0, "success", shortest=0.005, longest=0.05),
    "k": Kind("stick", 0.2, "timeout", limit=0.5, shortest=3600.0, longest=3600.0),
    "b": Kind("block", 0.2, "success", shortest=0.1, longest=0.2),
    "i": Kind("spin", 0.05, "timeout", limit=0.3, shortest=3600.0, longest=3600.0),
    "x": Kind("die", 0.03, "lost"),
    "y": Kind("die_once", 0.05, "success"),
    "r": Kind("fail_at_first", 0.0, "success"),
}
FLAKY = "r"
_FLAKY_SHARE = 3.0
_TRICKLING_SHARE = 0.6
# Of all batches: those that are opened and added to, and those of which some jobs are cancelled, or all.
_OPENED_SHARE = 0.4
_SOME_CANCELLED_SHARE, _ALL_CANCELLED_SHARE = 0.3, 0.15
# So many are cancelled of a batch, half of them of the kinds that take a while or do not heed a cancellation.
_CANCELLED = 20
_UNWILLING = "mlvhwpkbr"


Adding = Literal["", "keyed", "plain"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch that is to be submitted.

    Args:
        batch_id: Its id.
        kinds: A letter of `KINDS` for each job.
        retries: Further runs of a job that failed.
        seconds: How long its producer takes to make the jobs, one after another; 0: they are all at hand.
        adding: Empty: it is submitted. Else it is opened, and added to until it is closed: `keyed`, each job known by
            its key, so that a producer that was killed begins anew; or `plain`, by a producer that is not killed.
        cancelled: Indexes of jobs that somebody asks to cancel.
        is_cancelled: Whether somebody asks to cancel the whole batch; then fewer jobs than planned may be in it.
        cancelled_at: Of its jobs so many, as a share, are done when somebody asks.
    """

    batch_id: str
    kinds: str
    retries: int = 0
    seconds: float = 0.0
    adding: Adding = ""
    cancelled: tuple[int, ...] = ()
    is_cancelled: bool = False
    cancelled_at: float = 0.0

    @property
    def cancels(self) -> bool:
        """Whether somebody asks to cancel any of its jobs."""
        return self.is_cancelled or bool(self.cancelled)

    def is_cancelled_by_request(self, index: int) -> bool:
        """Whether somebody asks to cancel this job."""
        return self.is_cancelled or index in self.cancelled


def draw(rng: random.Random, batch_id: str, size: int, seconds: float) -> Planned:
    """Draw a batch: one that takes its producer so long, or one whose jobs are all at hand."""
    has_retries = rng.random() < 0.25
    shares = [_FLAKY_SHARE if letter == FLAKY and has_retries else kind.share for letter, kind in KINDS.items()]
    kinds = "".join(rng.choices(list(KINDS), shares, k=size))
    trickles = rng.random() < _TRICKLING_SHARE
    adding: Adding = rng.choice(("keyed", "plain")) if rng.random() < _OPENED_SHARE else ""
    cancels = rng.random()
    is_cancelled = cancels < _ALL_CANCELLED_SHARE
    some = not is_cancelled and cancels < _ALL_CANCELLED_SHARE + _SOME_CANCELLED_SHARE
    return Planned(
        batch_id,
        kinds,
        RETRIES if has_retries else 0,
        seconds if trickles else 0.0,
        adding,
        _draw_some(rng, kinds) if some else (),
        is_cancelled,
        round(rng.uniform(0.0, 0.8), 3),
    )


def _draw_some(rng: random.Random, kinds: str) -> tuple[int, ...]:
    unwilling = [index for index, letter in enumerate(kinds) if letter in _UNWILLING]
    half = rng.sample(unwilling, min(len(unwilling), _CANCELLED // 2))
    return tuple(sorted({*half, *rng.sample(range(len(kinds)), min(len(kinds), _CANCELLED // 2))}))


def append(path: Path, planned: Planned) -> None:
    """Write down what is going to be submitted."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(planned)) + "\n")


def read(path: Path) -> list[Planned]:
    """Read what was to be submitted."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [Planned(**{**fields, "cancelled": tuple(fields["cancelled"])}) for fields in found]
