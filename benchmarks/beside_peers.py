"""straggler beside other queues on Redis: no-op jobs a second, and one job's way; what each does not guarantee.

    python -m benchmarks.beside_peers [--size quick|normal|full]

Each library has two worker processes, a Redis on a loopback port and an environment of its own, made from the package
registry once. One after the other; each value is checked.
"""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Answer, median, percentile
from benchmarks.harness import Effort, main
from benchmarks.peers.catalogue import PEERS, STRAGGLER, Peer
from benchmarks.peers.environments import versions
from benchmarks.peers.measuring import Found, measured

GUARANTEES = {
    "a timeout stops": "stops",
    "a job that runs twice": "records",
    "a killed worker's job runs again": "recovers",
}


async def measure(effort: Effort) -> Answer:
    """Measure straggler, then each peer."""
    jobs = effort.pick(300, 10_000, 10_000)
    found = {peer.name: await measured(peer, jobs, effort) for peer in (STRAGGLER, *PEERS)}
    return answer(found, jobs)


def answer(found: dict[str, Found], jobs: int) -> Answer:
    """Write down what was found, the fastest first; who has no figures stands at the end, with the reason."""
    known = {peer.name: peer for peer in (STRAGGLER, *PEERS)}
    speeds = {name: jobs / median(one.batches) for name, one in found.items() if not one.problem}
    order = sorted(found, key=lambda name: -speeds.get(name, 0.0))
    figures: dict[str, float] = {f"{name} jobs/s": speed for name, speed in speeds.items()}
    figures |= {f"{name} p50 ms": median(found[name].lone) * 1000 for name in speeds}
    best = max((speed for name, speed in speeds.items() if name != STRAGGLER.name), default=0.0)
    if STRAGGLER.name in speeds and best:
        figures["ratio to best peer"] = speeds[STRAGGLER.name] / best
    notes = [f"{known[name].name}: {one.problem}." for name, one in found.items() if one.problem] + [
        "Every value of every job is checked. Where the last columns' facts stand: `benchmarks/peers/catalogue.py`."
    ]
    settings = {
        "no-op jobs": f"{jobs:,}",
        "worker processes": 2,
        "lone jobs": max(len(one.lone) for one in found.values()),
    }
    return Answer(
        "Beside other queues (medians)", settings, [_row(known[name], found[name], jobs) for name in order], figures,
        notes=notes,
    )  # fmt: skip


def _row(peer: Peer, found: Found, jobs: int) -> dict[str, Any]:
    version = peer.name if peer is STRAGGLER else versions(peer.name, peer.versions)
    measured = {"no-op jobs/s": "none", "runs": 0, "one job, p50 ms": "none", "p99 ms": "none"}
    if not found.problem:
        measured = {
            "no-op jobs/s": f"{jobs / median(found.batches):,.0f}",
            "runs": len(found.batches),
            "one job, p50 ms": f"{percentile(found.lone, 0.5) * 1000:.1f}",
            "p99 ms": f"{percentile(found.lone, 0.99) * 1000:.1f}",
        }
    guarantees = {title: getattr(peer, field) for title, field in GUARANTEES.items()}
    return {"": version, **measured, "bulk call and settings": peer.way, **guarantees}


if __name__ == "__main__":
    main(measure)
