"""One run of chaos: start everything, feed batches, let faults happen, heal, wait for the ends, and check."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos import checker, evidence, faults, recovery
from tests.chaos.batches import Batches
from tests.chaos.evidence import Disturbance, Evidence
from tests.chaos.faults import Fault, Faults
from tests.chaos.findings import Findings
from tests.chaos.nodes import Node
from tests.chaos.programs import Program
from tests.chaos.proxy import Proxy
from tests.chaos.recovery import Recovery
from tests.chaos.scene import Scene
from tests.chaos.store import Store, free_ports

# After the last fault all batches end within this, s.
LONGEST_CLOSE = 90.0
# Leases of workers that died last lapse, and what they held is seen to be done, s beyond the lease.
_LONGEST_TIDYING = 15.0
_SMALLEST_BATCH, _LARGEST_BATCH = 400, 2000


@dataclass(frozen=True, slots=True)
class Options:
    """What kind of run.

    Args:
        seconds: For how long faults happen.
        seed: What they are drawn from.
        jobs: At least so many are submitted, faults go on as long; None: as many as come at the rate.
        rate: Jobs a second.
        kinds: Kinds of faults.
        lease: The workers' setting, s.
        longest: No stop or cut is longer, s.
        gap: Longest time from one fault to the next, s.
    """

    seconds: float = 120.0
    seed: int = 0
    jobs: int | None = None
    rate: float = 200.0
    kinds: Sequence[str] = tuple(faults.KINDS)
    lease: float = 10.0
    longest: float = 15.0
    gap: float = 3.0

    @property
    def batch_size(self) -> int:
        """Jobs of a batch: each costs the start of a producer and a collector, about a second on one core."""
        return int(min(_LARGEST_BATCH, max(_SMALLEST_BATCH, self.rate * self.seconds / 40)))


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    options: Options
    folder: Path
    faults: list[Fault]
    evidence: Evidence
    recoveries: list[Recovery]
    findings: Findings
    took: float


async def run(options: Options, say: Callable[[str], None]) -> Report:
    """Run chaos once."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="straggler-chaos-"))
    for name in ("logs", "results", "again", "added", "tmp"):
        (folder / name).mkdir()
    say(f"seed {options.seed}; journal, results and logs in {folder}")
    findings = Findings(say)
    rng = random.Random(options.seed)
    async with _scene(options, folder, rng, findings) as scene:
        happened = Faults(scene, random.Random(rng.random()), options.kinds, say, options.longest, options.gap)
        await _disturb(options, scene.batches, happened)
        await scene.batches.close(LONGEST_CLOSE)
        await _tidy_up(scene, options.lease, findings)
        await _read_again(scene, folder, findings)
        await asyncio.gather(*(node.leave() for node in scene.nodes))
    disturbances = [
        Disturbance(fault.began, fault.healed, fault.nodes, fault.kind, fault.workers) for fault in happened.happened
    ]
    disturbances.sort(key=lambda disturbance: disturbance.began)
    (folder / "faults.jsonl").write_text("".join(json.dumps(asdict(fault)) + "\n" for fault in happened.happened))
    found = evidence.read(folder, disturbances, options.lease)
    measured = recovery.recoveries(found)
    findings.extend(checker.check(found))
    findings.extend(recovery.slow_ones(measured, options.lease))
    (folder / "findings.txt").write_text("".join(f"{finding}\n" for finding in findings))
    return Report(options, folder, happened.happened, found, measured, findings, time.monotonic() - began)


def forget(report: Report) -> None:
    """Delete what the run has left."""
    shutil.rmtree(report.folder, ignore_errors=True)


@asynccontextmanager
async def _scene(options: Options, folder: Path, rng: random.Random, findings: Findings) -> AsyncIterator[Scene]:
    """Start Redis, the proxy and the nodes; at the end nothing of them is left."""
    redis_port, proxy_port = free_ports(random.Random(), 2)
    store = Store(folder / "redis", redis_port)
    proxy = Proxy(proxy_port, redis_port)
    urls = {"n1": store.url, "n2": f"redis://127.0.0.1:{proxy_port}"}
    nodes = [Node(name, url, folder, store, options.lease, findings) for name, url in urls.items()]
    batches = Batches(folder, store, random.Random(rng.random()), options.batch_size, options.rate, findings)
    store.start()
    await proxy.start()
    keepers = [asyncio.create_task(node.keep(), name=f"node-{node.name}") for node in nodes]
    try:
        await asyncio.gather(*(node.ready() for node in nodes))
        yield Scene(store, nodes, nodes[-1], proxy, batches)
    finally:
        await batches.end()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for node in nodes:
            await node.end()
        await proxy.close()
        store.kill()


async def _disturb(options: Options, batches: Batches, happening: Faults) -> None:
    """Feed batches and let faults happen, for the time that is set and until there are jobs enough."""
    deadline = time.monotonic() + options.seconds
    feeding = asyncio.create_task(batches.feed())
    disturbing = asyncio.create_task(happening.run())
    try:
        while time.monotonic() < deadline or batches.jobs < (options.jobs or 0):
            await asyncio.wait({feeding, disturbing}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            for task in (feeding, disturbing):
                if task.done():
                    task.result()  # raises what broke it
    finally:
        for task in (disturbing, feeding):  # jobs come until the last fault is healed
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended


async def _tidy_up(scene: Scene, lease: float, findings: Findings) -> None:
    deadline = time.monotonic() + lease + _LONGEST_TIDYING
    while (left := scene.store.left_over()) and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(0.5)
    if left:
        findings.add("left over", f"{len(left)} keys and entries when all batches have ended, such as {left[:4]}")


async def _read_again(scene: Scene, folder: Path, findings: Findings) -> None:
    ids = [planned.batch_id for planned in scene.batches.planned]
    words = ["tests.chaos.collect", scene.store.url, str(folder), "--again", *ids]
    reader = Program("the last read", words, folder / "logs" / "again.log", {})
    await reader.start()
    try:
        if await reader.wait() != 0:
            findings.add("died", f"the last read of all batches failed: {reader.last_words()}")
    finally:
        await reader.end()
