"""A short run of chaos; `CHAOS_SECONDS` makes it longer, and `make chaos` is the same at any length."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.chaos import report
from tests.chaos.running import Options, forget, run

SECONDS = float(os.environ.get("CHAOS_SECONDS", "40"))
# Always the same faults, that one run may be compared to another; `make chaos` draws others.
SEED = 7
# What a machine that is busy with other things breaks, too: told, and for `make chaos` to fail by.
TIMES = {"recovery", "too early", "ran on"}


@pytest.mark.redis
def test_nothing_is_lost_and_nothing_comes_twice() -> None:
    lines: list[str] = []
    # So dense that most kinds of faults happen: a round of all takes a minute.
    ran = asyncio.run(run(Options(SECONDS, SEED, rate=100.0, lease=5.0, longest=6.0, gap=1.0), lines.append))
    told = "\n".join([*lines, *report.lines(ran)])
    sys.stdout.write(told)
    assert not [finding for finding in ran.findings if finding.rule not in TIMES], told
    forget(ran)
