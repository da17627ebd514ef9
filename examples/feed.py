"""Count the lines of 200 files, of which two never end and one is not there. Needs a Redis and a worker."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

from jobs import count_lines

from straggler import FailureResult, Producer, SuccessResult, TimeoutResult


async def main(names: list[str]) -> int:
    lines, ends = 0, Counter[str]()
    async with Producer() as producer:  # at STRAGGLER_REDIS_URL, or redis://localhost:6379
        batch = await producer.submit((count_lines.spec(name, key=name) for name in names), timeout=1)
        async for result in batch.as_completed():
            ends[result.status] += 1
            match result:
                case SuccessResult(value=size):
                    lines += size.lines
                case TimeoutResult(key=name, phase=phase, limit=limit):
                    print(f"{name} was still {phase} after {limit:g} s")
                case FailureResult(key=name, error_type=error_type, message=message):
                    print(f"{name} failed: {error_type}: {message}")
    print(f"{lines:,} lines; {', '.join(f'{count} {status}' for status, count in ends.items())}")
    return int(ends != {"success": 197, "timeout": 2, "failure": 1})


sys.exit(asyncio.run(main(Path(__file__).with_name("files.txt").read_text().split())))
