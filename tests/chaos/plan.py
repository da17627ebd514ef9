"""What is submitted: the kinds of jobs, what each may end in, and the batches that are drawn from them.

Producer, jobs and checker all go by this table; it imports nothing of straggler.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

# Batch options `retries`, `backoff` and `retry_on` do not exist yet: with this on, some batches are submitted with them
# and hold jobs that fail their first or second run.
HAS_RETRIES = True
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


@dataclass(frozen=True, slots=True)
class Planned:
    """A batch that is to be submitted.

    Args:
        batch_id: Its id.
        kinds: A letter of `KINDS` for each job.
        retries: Further runs of a job that failed.
        seconds: How long its producer takes to make the jobs, one after another; 0: they are all at hand.
        cancelled: Indexes of jobs that somebody asked to cancel.
    """

    batch_id: str
    kinds: str
    retries: int = 0
    seconds: float = 0.0
    cancelled: tuple[int, ...] = ()


def draw(rng: random.Random, batch_id: str, size: int, seconds: float) -> Planned:
    """Draw a batch: one that takes its producer so long, or one whose jobs are all at hand."""
    has_retries = HAS_RETRIES and rng.random() < 0.25
    shares = [_FLAKY_SHARE if letter == FLAKY and has_retries else kind.share for letter, kind in KINDS.items()]
    kinds = "".join(rng.choices(list(KINDS), shares, k=size))
    return Planned(batch_id, kinds, RETRIES if has_retries else 0, seconds if rng.random() < _TRICKLING_SHARE else 0.0)


def append(path: Path, planned: Planned) -> None:
    """Write down what is going to be submitted."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(planned)) + "\n")


def read(path: Path) -> list[Planned]:
    """Read what was to be submitted."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [Planned(**{**fields, "cancelled": tuple(fields["cancelled"])}) for fields in found]
