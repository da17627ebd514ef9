"""Jobs for `examples/feed.py`: `straggler worker --jobs examples/jobs.py` runs them.

Files are named from the standard library's directory on, so they are there wherever a worker runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from straggler import job

LIBRARY = Path(os.__file__).parent
BLOCK_BYTES = 1 << 20


@dataclass
class Size:
    """What was counted in one file."""

    lines: int
    bytes: int


@job(timeout=10)
async def count_lines(name: str) -> Size:
    """Count a file's lines. A file that never ends, such as /dev/zero, is for the timeout to end."""
    size = Size(0, 0)
    with (LIBRARY / name).open("rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            size.lines += block.count(b"\n")
            size.bytes += len(block)
    return size


@job(timeout=10)
def sha256(name: str) -> str:
    """Hash a file; a plain function is a job as well."""
    return hashlib.sha256((LIBRARY / name).read_bytes()).hexdigest()
