"""A collector as a process, so that it can be killed: writes down each result with its cursor, and goes on from there.

Result and cursor are one line, written at once: what a kill leaves is either both or none.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from straggler import Batch, BatchNotFoundError, Producer

# Until a producer that is killed at its start has begun again, s.
_LONGEST_WAIT = 60.0
# What of a batch is not there after this long, s, when it is read a second time, is not there.
_LONGEST_READ = 10.0


async def collect(url: str, folder: Path, batch_id: str) -> None:
    """Collect a batch from where the last collector was, to its end."""
    path = folder / "results" / f"{batch_id}.jsonl"
    path.touch()
    cursor = _mend(path)
    async with Producer(url) as producer:
        batch = await attach(producer, batch_id, cursor)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        async for result in batch.as_completed():
            _write(descriptor, {"seen": time.time(), "cursor": batch.cursor, "result": result.model_dump(mode="json")})


async def read_again(url: str, folder: Path, batch_ids: Iterable[str]) -> None:
    """Read batches from their beginnings, when all is over: how many jobs each has, and all results."""
    async with Producer(url) as producer:
        for batch_id in batch_ids:
            path = folder / "again" / f"{batch_id}.jsonl"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                batch = await producer.attach(batch_id)
                _write(descriptor, {"total": (await batch.status()).total})
                async for result in batch.as_completed(timeout=_LONGEST_READ):
                    _write(descriptor, {"result": result.model_dump(mode="json")})
            except (BatchNotFoundError, TimeoutError):  # the checker misses them
                continue
            finally:
                os.close(descriptor)


async def attach(producer: Producer, batch_id: str, cursor: str | None = None) -> Batch[Any]:
    """Find a batch, as soon as it is there."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while True:
        try:
            return await producer.attach(batch_id, cursor=cursor)
        except BatchNotFoundError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _mend(path: Path) -> str | None:
    """Cut off a line that a kill has torn; returns the last cursor."""
    written = path.read_bytes()
    whole = written.rpartition(b"\n")[0] + b"\n" if b"\n" in written else b""
    if whole != written:
        os.truncate(path, len(whole))
    lines = whole.splitlines()
    return json.loads(lines[-1])["cursor"] if lines else None


def _write(descriptor: int, line: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[3] == "--again":
        asyncio.run(read_again(sys.argv[1], Path(sys.argv[2]), sys.argv[4:]))
    else:
        asyncio.run(collect(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
