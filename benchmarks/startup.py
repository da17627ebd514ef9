"""How long one waits before anything happens: the command line's help, the import, a worker until its first result.

    python -m benchmarks.startup [--size quick|normal|full]

Each is a process of its own, from before it is started to its end, or to the first result.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from benchmarks.figures import Answer, median
from benchmarks.harness import HERE, Effort, end, main, redis_server, start_worker
from benchmarks.jobs import noop
from straggler import Producer


def whole(*words: str) -> float:
    """Run Python with these words to its end; returns how long it took, s."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


async def first_result() -> float:
    """Start a worker while a job waits; returns the time until its result is recorded, s."""
    with redis_server() as url:
        async with Producer(url) as producer:
            batch = await producer.submit([noop.spec(1)])
            started = time.perf_counter()
            worker = start_worker(url, 100, subprocess.DEVNULL)
            try:
                async with asyncio.timeout(30):
                    while not (await batch.status()).complete:
                        await asyncio.sleep(0.005)
                took = time.perf_counter() - started
            finally:
                worker.terminate()
                end(worker)
    return took


async def measure(effort: Effort) -> Answer:
    """Measure each in turn."""
    runs = 2 * effort.runs
    whole("-m", "straggler.cli", "--help")  # what is not compiled yet, is now
    bare, imports, helps = [], [], []
    for _ in range(runs):
        bare.append(whole("-c", "pass"))
        imports.append(whole("-c", "import straggler"))
        helps.append(whole("-m", "straggler.cli", "--help"))
    ready = [await first_result() for _ in range(effort.runs)]
    figures = {
        "import s": median(imports), "help s": median(helps), "ready s": median(ready), "python s": median(bare),
    }  # fmt: skip
    rows = [
        {"": name, "s": f"{median(times):.3f}", "slowest": f"{max(times):.3f}"}
        for name, times in (
            ("`python -c pass`", bare),
            ("`python -c 'import straggler'`", imports),
            ("`straggler --help`", helps),
            ("`straggler worker`, to the first result of a job that waits", ready),
        )
    ]
    return Answer("Start-up (medians)", {"runs": runs, "of the worker": effort.runs}, rows, figures)


if __name__ == "__main__":
    main(measure)
