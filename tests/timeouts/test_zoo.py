"""The zoo: whatever a job does, it ends in one result, the right one and in time, and no other job loses its own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from producer.producer import Producer
from tests.commands import unmeasured
from tests.conftest import LONGEST_TEST
from tests.timeouts.rows import ROWS
from tests.timeouts.running import ORDINARY, ROOT, TIMES, Verdict, bad_ones, judge, run, specs, workers

# Seconds that a test grants beyond the bound, as its machine has other things to do; `make zoo` grants none. Nothing in
# the zoo ends by itself within a minute.
MARGIN = 10.0
# A worker process takes half a second of CPU to start: jobs that end theirs run once here, four times in `make zoo`.
OF_CRASHES = 1
# What was claimed by a process that then ended before it could say so has one attempt burnt.
MOST_ATTEMPTS = 4


def wrong(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.is_right(MARGIN)]


@pytest.mark.alone
@pytest.mark.redis
async def test_every_misbehaving_job_has_its_one_result_and_no_other_loses_its_own(
    producer: Producer, redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "zoo.log"
    with workers(redis_url, log):
        results = await run(producer, specs(ROWS.values(), ORDINARY, OF_CRASHES))
    assert not wrong(judge(results, ROWS.values()))
    assert not bad_ones(results)
    assert Counter(result.key for result in results)["ordinary"] == ORDINARY
    assert max(result.attempt for result in results) <= MOST_ATTEMPTS
    text = log.read_text()
    assert text.count("Traceback") == text.count("exception was never retrieved"), text  # the jobs' own


def test_the_zoo_is_large() -> None:
    assert len(ROWS) >= 50
    assert all(row.job.function.__doc__ for row in ROWS.values())
    assert TIMES == 4


@pytest.mark.alone
def test_the_embedded_mode_bears_all_that_needs_no_second_process() -> None:
    # In a process of its own: some of the jobs leave behind what runs on, and take away what pytest needs.
    words = [sys.executable, "-m", "tests.timeouts", "--embedded", "--margin", str(MARGIN)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_TEST, check=False, env=unmeasured()
    )
    assert done.returncode == 0, done.stdout + done.stderr
