"""Jobs for the dashboard's tests, importable by worker processes as `tests.dashboard.jobs`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from straggler import current_job, job

ATTACK = "<script>window.attacked = true</script><img src=x onerror='window.attacked = true'>\"'"


@job
async def attack() -> dict[str, str]:
    return {ATTACK: ATTACK}


@job
async def fail_with(message: str) -> None:
    raise ValueError(message)


@job
async def fetch_number(number: int, seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return number


@job
async def wait_with_a_note(path: Path, note: str) -> None:
    """Tell a note, and run until the file is there."""
    current_job().heartbeat(progress=0.4, note=note)
    while not path.exists():  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.01)
