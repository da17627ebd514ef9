"""Interrupts hit the overdue job that blocks, and nothing else; stalls are told, and do not charge the neighbours."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from uuid import uuid4

import pytest

from protocol.settings import Settings
from straggler import TimeoutResult, embedded, job
from tests.timeouts.stress import CONCURRENT, JOBS, stress

pytestmark = pytest.mark.alone

# `make stress` takes a minute.
SECONDS = float(os.environ.get("STRESS_SECONDS", "5"))


async def test_blocking_at_random_moments_interrupts_nothing_but_overdue_jobs() -> None:
    async with asyncio.timeout(SECONDS + 50):
        async with embedded(Settings(concurrency=CONCURRENT), url=f"memory://{uuid4().hex}") as producer:
            report = await stress(producer, SECONDS)
    assert not report.strays
    assert report.outcomes["punctual", "success"] > JOBS / 2
    assert report.outcomes["overdue", "timeout interrupted"]
    assert report.turns > 50


async def test_a_stall_is_told_by_name_and_moves_the_neighbours_deadlines(caplog: pytest.LogCaptureFixture) -> None:
    @job
    async def neighbour() -> float:
        began = time.monotonic()
        for _ in range(4):
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    @job
    async def blocker() -> str:
        await asyncio.sleep(0.15)
        time.sleep(1.2)
        return "done"

    @job
    async def late_neighbour() -> None:
        await asyncio.sleep(60)

    jobs = [neighbour.spec(timeout=0.8), late_neighbour.spec(timeout=0.8), blocker.spec(timeout=5)]
    async with embedded(Settings()) as producer:
        with caplog.at_level(logging.WARNING):
            batch = await producer.submit(jobs)
            results = {result.index: result async for result in batch.as_completed()}
    assert results[0].unwrap() > 1.2
    late = results[1]
    assert isinstance(late, TimeoutResult)
    assert 0.8 + 1.2 <= (late.duration or 0) < 0.8 + 1.2 + 20.0
    assert results[2].unwrap() == "done"
    stalls = [record for record in caplog.records if getattr(record, "event", "") == "loop.stalled"]
    assert len(stalls) == 1
    assert re.match(rf"job {batch.id}:2 blocker blocked the event loop for (1\.[2-9]|[2-9])", stalls[0].getMessage())
