"""Serve the dashboard until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from dashboard.access import Access
from dashboard.app import make_app
from producer.producer import Producer
from protocol.errors import UsageError

# Open pages hold a stream each; the end does not wait for them longer than this, s.
_FAREWELL = 1


async def serve(producer: Producer, access: Access, listener: socket.socket) -> None:
    """Serve on a socket that listens, until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        make_app(producer, access),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
        proxy_headers=False,
        lifespan="on",
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve([listener])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 takes any that is free.

    Raises:
        UsageError: If that cannot be.
    """
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"the dashboard cannot listen on {host} port {port} ({error}): name another with --host and --port"
        ) from None


class _Server(uvicorn.Server):
    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn would raise them once more after the end."""
        yield
