"""`make zoo`: run the zoo on two worker processes, and print what became of each job."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from straggler import Producer
from tests.redis_server import RedisServer
from tests.timeouts.rows import ROWS
from tests.timeouts.running import BOUND, ORDINARY, TIMES, Verdict, judge, judge_ordinary, run, specs

WORDS = [sys.executable, "-m", "straggler.cli", "worker", "--processes", "2", "--concurrency", "20"]
WORDS += ["--jobs", "tests.timeouts.zoo"]


async def main() -> int:
    """Run and print; returns the exit code."""
    server = RedisServer().start()
    environment = {**os.environ, "STRAGGLER_REDIS_URL": server.url, "STRAGGLER_SHUTDOWN_WAIT": "1"}
    log = Path(tempfile.gettempdir()) / "straggler-zoo.log"
    began = time.monotonic()
    with log.open("w") as output, subprocess.Popen(WORDS, env=environment, stderr=output) as workers:
        try:
            async with Producer(server.url) as producer:
                results = await run(producer, specs(ROWS.values(), ORDINARY))
        finally:
            workers.terminate()
            workers.wait()
            server.stop()
    return _tell(judge(results, ROWS.values()), results, time.monotonic() - began, log)


def _tell(verdicts: Sequence[Verdict], results: Sequence[Any], took: float, log: Path) -> int:
    print(f"{'job':<28}{'result':<10}{'stopped or error':<22}{'s over limit':>12}   worst of {TIMES}")
    for verdict in verdicts:
        print(_line(verdict))
    bad = judge_ordinary(results)
    wrong = [verdict for verdict in verdicts if not verdict.is_right()]
    attempts = Counter(result.attempt for result in results if result.key == "ordinary")
    print(
        f"{len(verdicts) * TIMES} misbehaving jobs and {ORDINARY:,} ordinary ones in {took:.1f} s, one result each: "
        f"{len(wrong)} rows not as promised (limit + grace + {BOUND} s), {len(bad)} ordinary jobs without success, "
        f"attempts {dict(attempts)}; log: {log}"
    )
    return 1 if wrong or bad else 0


def _line(verdict: Verdict) -> str:
    got = ", ".join(verdict.outcomes)
    status, _, how = got.partition(" ")
    text = f"{verdict.row.name:<28}{status:<10}{how:<22}{verdict.over:>+12.3f}"
    if set(verdict.outcomes) != {verdict.row.expected}:
        text += f"   expected {verdict.row.expected}, got {dict(verdict.outcomes)}"
    elif not verdict.is_right():
        text += f"   {verdict.beyond:.3f} s beyond the bound"
    return text


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
