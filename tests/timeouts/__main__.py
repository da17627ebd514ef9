"""`make zoo`: run the zoo on two worker processes, and print what became of each job."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from straggler import Producer, Settings
from straggler import embedded as open_embedded
from tests.redis_server import RedisServer
from tests.timeouts.rows import ROWS
from tests.timeouts.running import BOUND, ORDINARY, TIMES, Verdict, bad_ones, judge, run, specs, workers


async def main(*, embedded: bool, margin: float) -> int:
    """Run and print; returns the exit code."""
    log = Path(tempfile.gettempdir()) / "straggler-zoo.log"
    began = time.monotonic()
    if embedded:
        rows = [row for row in ROWS.values() if not row.needs]
        logging.basicConfig(filename=log, filemode="w")
        async with open_embedded(Settings(concurrency=20)) as producer:
            results = await run(producer, specs(rows, ORDINARY))
    else:
        rows = list(ROWS.values())
        with server() as url, workers(url, log):
            async with Producer(url) as producer:
                results = await run(producer, specs(rows, ORDINARY))
    return _tell(judge(results, rows), results, margin, f"{time.monotonic() - began:.1f} s; log: {log}")


@contextmanager
def server() -> Iterator[str]:
    """Start a Redis of our own; yields its URL."""
    redis = RedisServer().start()
    try:
        yield redis.url
    finally:
        redis.stop()


def _tell(verdicts: Sequence[Verdict], results: Sequence[Any], margin: float, took: str) -> int:
    print(f"{'job':<28}{'result':<10}{'stopped or error':<22}{'s over limit':>12}   worst of {TIMES}")
    for verdict in verdicts:
        print(_line(verdict))
    bad = bad_ones(results)
    wrong = [verdict for verdict in verdicts if not verdict.is_right(margin)]
    attempts = Counter(result.attempt for result in results if result.key == "ordinary")
    print(
        f"{len(verdicts) * TIMES} misbehaving jobs and {ORDINARY:,} ordinary ones, one result each: "
        f"{len(wrong)} rows not as promised (limit + grace + {BOUND} s), {len(bad)} ordinary jobs without success, "
        f"attempts {dict(attempts)}; {took}"
    )
    return 1 if wrong or bad else 0


def _line(verdict: Verdict) -> str:
    got = ", ".join(verdict.outcomes)
    status, _, how = got.partition(" ")
    text = f"{verdict.row.name:<28}{status:<10}{how:<22}{verdict.over:>+12.3f}"
    if not set(verdict.outcomes) <= verdict.row.allowed:
        text += f"   expected {verdict.row.expected}, got {dict(verdict.outcomes)}"
    elif not verdict.is_right():
        text += f"   {verdict.beyond:.3f} s beyond the bound"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="in this process, what needs no other to end it")
    parser.add_argument("--margin", type=float, default=0.0, help="seconds granted beyond the bound")
    given = parser.parse_args()
    code = asyncio.Runner().run(main(embedded=given.embedded, margin=given.margin))
    sys.stdout.flush()
    os._exit(code)  # what some jobs have left behind would keep us
