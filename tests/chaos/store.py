"""The Redis of a run of chaos: it keeps an append-only file, so no write that it has acknowledged may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from pathlib import Path

from redis.exceptions import RedisError

from tests.redis_server import RedisServer


class Store:
    """A redis-server that goes away and comes back; on a loopback port, and for ourselves on a unix socket.

    Args:
        folder: Where its data stand.
        port: Its port.

    Attributes:
        is_up: Set while it runs.
    """

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self.is_up = asyncio.Event()
        self._server = RedisServer(
            "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always",
            directory=folder,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, with the data that are there."""
        self._server.start()
        self.is_up.set()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.is_up.clear()
        self._server.kill()

    def shut_down(self) -> None:
        """End it in order, as an operator would."""
        self.is_up.clear()
        with self._server.client() as client, contextlib.suppress(RedisError):
            client.execute_command("SHUTDOWN")
        os.waitid(os.P_PID, self._server.pid, os.WEXITED | os.WNOWAIT)
        self._server.kill()

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._server.pid, signum)

    def kill_clients(self) -> int:
        """Close all its clients' connections; returns how many."""
        with self._server.client() as client:
            return int(client.execute_command("CLIENT", "KILL", "TYPE", "normal"))

    def lose_leases(self, share: float, rng: random.Random) -> int:
        """Lose leases, as a failover to a replica that had not heard of them does; returns how many."""
        with self._server.client() as client:
            leases = sorted(client.scan_iter("arq:in-progress:*", count=1000))
            lost = [lease for lease in leases if rng.random() < share]
            for lease in lost:
                client.delete(lease)
                client.zadd("straggler:queue:default", {lease.removeprefix(b"arq:in-progress:"): 1}, xx=True)
        return len(lost)

    def left_over(self) -> list[str]:
        """Name what should not be there once all batches have ended: arq's keys, queued chunks, immortal keys."""
        found = []
        with self._server.client() as client:
            for key in client.scan_iter(count=1000):
                name = key.decode()
                if name.startswith("arq:") and not name.endswith("health-check"):
                    found.append(name)
                elif client.ttl(key) == -1:
                    found.append(f"{name} (never expires)")
            found += [
                f"chunk {chunk.decode()} in the queue" for chunk in client.zrange("straggler:queue:default", 0, -1)
            ]
        return found


def free_ports(rng: random.Random, count: int) -> list[int]:
    """Find free ports below those that the kernel gives to clients.

    A client that keeps connecting to a closed port of that range is one day given this very port and connects to
    itself; and another program's client may take it while Redis is away.
    """
    found: list[int] = []
    while len(found) < count:
        port = rng.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
