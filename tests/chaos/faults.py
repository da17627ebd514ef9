"""Faults: what happens to workers, Redis, producers and collectors, drawn one after another from a seed.

Each fault heals what it has broken before it is over. One in four begins before the one before it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.chaos.batches import Pair
from tests.chaos.programs import Program
from tests.chaos.proxy import Cut
from tests.chaos.scene import Scene

_OVERLAPS = 0.25
# Who is to be killed in the middle of its work is waited for, s.
_LONGEST_WAIT = 10.0


@dataclass(slots=True)
class Fault:
    """One fault, for the report.

    Args:
        kind: Its kind.
        began: Unix s.
        healed: Unix s; when what was broken worked again.
        nodes: Whom it touched.
        workers: Process ids of the workers that it touched; empty: all of the nodes.
        detail: For people.
    """

    kind: str
    began: float
    healed: float = 0.0
    nodes: tuple[str, ...] = ()
    workers: tuple[int, ...] = ()
    detail: str = ""


class Faults:
    """Draw faults and let them happen.

    Args:
        scene: Whom they befall.
        rng: Draws them.
        kinds: Which kinds.
        say: Prints a line.
        longest: No stop or cut is longer than this, s.
        gap: Longest time from one fault to the next, s.
    """

    def __init__(
        self,
        scene: Scene,
        rng: random.Random,
        kinds: Sequence[str],
        say: Callable[[str], None],
        longest: float,
        gap: float,
    ) -> None:
        self.happened: list[Fault] = []
        self._scene = scene
        self._rng = rng
        self._kinds = kinds
        self._say = say
        self._longest = longest
        self._gap = gap
        self._began = time.time()

    async def run(self) -> None:
        """Let faults happen until cancelled; those that have begun are healed first."""
        running: list[asyncio.Task[None]] = []
        try:
            while True:
                # All kinds once, in an order that is drawn, then again: a short run meets most of them.
                for kind in self._rng.sample(self._kinds, len(self._kinds)):
                    await asyncio.sleep(self._rng.uniform(self._gap / 6, self._gap))
                    overlaps = self._rng.random() < _OVERLAPS
                    running.append(asyncio.create_task(self._happen(kind), name=f"fault-{kind}"))
                    if not overlaps:
                        await _until_over(running)
        finally:
            await _until_over(running)

    async def _happen(self, kind: str) -> None:
        fault = Fault(kind, time.time())
        begin = KINDS[kind]
        # Drawn before anything is waited for, so that the seed alone decides.
        rng = random.Random(self._rng.random())
        await begin(self, fault, rng)
        fault.healed = time.time()
        if fault.detail:
            self.happened.append(fault)

    def _tell(self, fault: Fault, detail: str) -> None:
        fault.began = fault.healed = time.time()
        fault.detail = detail
        self._say(f"{fault.began - self._began:7.1f} s  {fault.kind:<16}{detail}")

    def _duration(self, rng: random.Random, shortest: float, longest: float) -> float:
        return round(min(self._longest, rng.uniform(shortest, longest)), 2)

    # ---- workers and their supervisors

    async def _kill_worker(self, fault: Fault, rng: random.Random) -> None:
        async with self._worker(fault, rng) as (name, pid):
            if pid:
                self._tell(fault, f"{name}: kill -9 of worker {pid}")
                _send(pid, signal.SIGKILL)

    async def _stop_worker(self, fault: Fault, rng: random.Random) -> None:
        duration = self._duration(rng, 1, 15)
        async with self._worker(fault, rng) as (name, pid):
            if pid:
                self._tell(fault, f"{name}: SIGSTOP of worker {pid} for {duration} s")
                _send(pid, signal.SIGSTOP)
                await asyncio.sleep(duration)
                _send(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def _worker(self, fault: Fault, rng: random.Random) -> AsyncIterator[tuple[str, int]]:
        """Draw a worker for a fault, beside which its node has no other; yields node and process id, 0 if none."""
        node = rng.choice(self._scene.nodes)
        async with node.lock:
            await node.ready()
            pids = node.workers()
            pid = rng.choice(pids) if pids else 0
            fault.nodes, fault.workers = (node.name,), (pid,)
            yield node.name, pid

    async def _kill_node(self, fault: Fault, rng: random.Random) -> None:
        node, pause = rng.choice(self._scene.nodes), self._duration(rng, 0, 3)
        async with node.lock:
            await node.ready()
            fault.nodes, fault.workers = (node.name,), tuple(node.workers())
            self._tell(fault, f"{node.name}: kill -9 of supervisor {node.pid}, another {pause} s later")
            await node.kill(pause)

    async def _stop_node(self, fault: Fault, rng: random.Random) -> None:
        node, duration = rng.choice(self._scene.nodes), self._duration(rng, 1, 15)
        async with node.lock:
            await node.ready()
            fault.nodes, fault.workers = (node.name,), tuple(node.workers())
            self._tell(fault, f"{node.name}: SIGSTOP of supervisor {node.pid} for {duration} s")
            node.send(signal.SIGSTOP)
            await asyncio.sleep(duration)
            node.send(signal.SIGCONT)

    async def _restart_nodes(self, fault: Fault, rng: random.Random) -> None:
        for node in rng.sample(self._scene.nodes, len(self._scene.nodes)):
            one = Fault(fault.kind, time.time())
            async with node.lock:
                await node.ready()
                one.nodes, one.workers = (node.name,), tuple(node.workers())
                self._tell(one, f"{node.name}: SIGTERM of supervisor {node.pid}, rolling")
                await node.terminate()
            self.happened.append(one)  # its workers' jobs are free as soon as they have left
            await node.ready()
            one.healed = time.time()

    # ---- Redis

    async def _kill_redis(self, fault: Fault, rng: random.Random) -> None:
        await self._restart_redis(fault, rng, "kill -9", self._scene.store.kill)

    async def _shut_redis_down(self, fault: Fault, rng: random.Random) -> None:
        await self._restart_redis(fault, rng, "SHUTDOWN", self._scene.store.shut_down)

    async def _restart_redis(self, fault: Fault, rng: random.Random, how: str, end: Callable[[], None]) -> None:
        pause = self._duration(rng, 0, 5)
        async with self._scene.redis_lock:
            fault.nodes = self._all
            self._tell(fault, f"{how} of Redis, started again {pause} s later")
            end()
            await asyncio.sleep(pause)
            self._scene.store.start()

    async def _stop_redis(self, fault: Fault, rng: random.Random) -> None:
        duration = self._duration(rng, 1, 12)
        async with self._scene.redis_lock:
            fault.nodes = self._all
            self._tell(fault, f"SIGSTOP of Redis for {duration} s")
            self._scene.store.send(signal.SIGSTOP)
            await asyncio.sleep(duration)
            self._scene.store.send(signal.SIGCONT)

    async def _kill_clients(self, fault: Fault, _rng: random.Random) -> None:
        async with self._scene.redis_lock:
            fault.nodes = self._all
            self._tell(fault, f"CLIENT KILL TYPE normal: {self._scene.store.kill_clients()} connections")

    async def _lose_leases(self, fault: Fault, rng: random.Random) -> None:
        async with self._scene.redis_lock:
            fault.nodes = self._all
            began = time.time()
            self._tell(fault, f"{self._scene.store.lose_leases(0.5, rng)} leases are lost")
            fault.began = began  # losing them takes a while

    @property
    def _all(self) -> tuple[str, ...]:
        return tuple(node.name for node in self._scene.nodes)

    # ---- the network

    async def _cut(self, fault: Fault, rng: random.Random, mode: Cut) -> None:
        duration = self._duration(rng, 1, 15)
        async with self._scene.proxy_lock:
            fault.nodes = (self._scene.cut_off.name,)
            self._tell(fault, f"{self._scene.cut_off.name}: cut off from Redis ({mode}) for {duration} s")
            self._scene.proxy.cut(mode)
            await asyncio.sleep(duration)
            self._scene.proxy.heal()

    async def _cut_hold(self, fault: Fault, rng: random.Random) -> None:
        await self._cut(fault, rng, "hold")

    async def _cut_drop(self, fault: Fault, rng: random.Random) -> None:
        await self._cut(fault, rng, "drop")

    async def _cut_reset(self, fault: Fault, rng: random.Random) -> None:
        await self._cut(fault, rng, "reset")

    # ---- producers and collectors

    async def _kill_producer(self, fault: Fault, rng: random.Random) -> None:
        # One without keys would not know how far it had come.
        await self._kill_one(
            fault, rng, 0.5, lambda pair: pair.producer if pair.submits and pair.planned.adding != "plain" else None
        )

    async def _kill_collector(self, fault: Fault, rng: random.Random) -> None:
        # It may just have been started.
        await self._kill_one(fault, rng, 1.5, lambda pair: pair.collector if pair.collector.is_running else None)

    async def _kill_canceller(self, fault: Fault, rng: random.Random) -> None:
        await self._kill_one(fault, rng, 0.1, lambda pair: pair.canceller if pair.cancels else None)

    async def _kill_one(
        self, fault: Fault, rng: random.Random, longest: float, find: Callable[[Pair], Program | None]
    ) -> None:
        """Wait for a program to kill, and kill it within a time, s."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while not (found := [program for pair in self._scene.batches.open if (program := find(pair))]):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.02)
        program = rng.choice(found)
        await asyncio.sleep(rng.uniform(0, longest))
        if program.is_running:
            self._tell(fault, f"kill -9 of {program.name}")
            program.kill()


KINDS: dict[str, Callable[[Faults, Fault, random.Random], Awaitable[None]]] = {
    "worker-kill": Faults._kill_worker,
    "worker-stop": Faults._stop_worker,
    "node-kill": Faults._kill_node,
    "node-stop": Faults._stop_node,
    "node-term": Faults._restart_nodes,
    "redis-kill": Faults._kill_redis,
    "redis-shutdown": Faults._shut_redis_down,
    "redis-stop": Faults._stop_redis,
    "redis-clients": Faults._kill_clients,
    "lease-loss": Faults._lose_leases,
    "cut-hold": Faults._cut_hold,
    "cut-drop": Faults._cut_drop,
    "cut-reset": Faults._cut_reset,
    "producer-kill": Faults._kill_producer,
    "collector-kill": Faults._kill_collector,
    "canceller-kill": Faults._kill_canceller,
}


async def _until_over(running: list[asyncio.Task[None]]) -> None:
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()  # raises what broke it
    running.clear()


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signum)
