"""`make chaos`: see `python -m tests.chaos --help`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence

from tests.chaos import faults
from tests.chaos.report import lines
from tests.chaos.running import Options, forget, run


def main(words: Sequence[str]) -> int:
    """Run and print; returns the exit code: 1 with findings."""
    given = _parse(words)
    rate = given.jobs_per_second
    if given.jobs is not None:
        rate = 1.1 * given.jobs / given.seconds  # some of the time Redis is away
    kinds = given.faults.split(",") if given.faults else list(faults.KINDS)
    options = Options(given.seconds, given.seed, given.jobs, rate, kinds, given.lease, given.longest, given.gap)

    def say(line: str) -> None:
        if not given.quiet or line.startswith("seed"):
            print(line, flush=True)  # noqa: T201

    report = asyncio.run(run(options, say))
    for line in lines(report):
        print(line)  # noqa: T201
    if not report.findings and not given.keep:
        forget(report)
    return 1 if report.findings else 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("chaos", description="Break everything that can break, and look for lost jobs.")
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long faults happen")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--jobs", type=int, help="at least so many, in place of a rate")
    parser.add_argument("--jobs-per-second", type=float, default=200.0)
    parser.add_argument("--faults", help=f"only these kinds, of {', '.join(faults.KINDS)}")
    parser.add_argument("--lease", type=float, default=10.0, help="STRAGGLER_LEASE of the workers, s")
    parser.add_argument("--longest", type=float, default=15.0, help="no stop or cut is longer, s")
    parser.add_argument("--gap", type=float, default=3.0, help="longest time from one fault to the next, s")
    parser.add_argument("--quiet", action="store_true", help="only the seed and the table")
    parser.add_argument("--keep", action="store_true", help="keep journal, results and logs without findings too")
    given = parser.parse_args(words)
    unknown = set(given.faults.split(",") if given.faults else ()) - set(faults.KINDS)
    if unknown:
        parser.error(f"no faults of kind {', '.join(sorted(unknown))}; known are {', '.join(faults.KINDS)}")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
