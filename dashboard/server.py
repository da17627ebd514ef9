"""Serve the dashboard on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import anyio
import uvicorn

from dashboard.access import Access
from dashboard.app import make_app
from producer.producer import Producer
from protocol.errors import UsageError

# Open pages hold a stream each; the end does not wait for them longer than this, s.
_FAREWELL = 1


async def get_ready(producer: Producer, access: Access) -> uvicorn.Server:
    """Make the server, and whatever else its first visitor would wait for or a running batch pay for.

    Args:
        producer: Whose Redis is shown.
        access: Who may do what.
    """
    config = uvicorn.Config(
        make_app(producer, access),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
        proxy_headers=False,
        lifespan="on",
    )
    config.load()
    async with anyio.create_task_group():
        pass  # imports what Starlette streams with: 0.1 s
    return _Server(config)


async def serve(server: uvicorn.Server, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve on a socket that listens, until told to stop.

    Args:
        server: What serves.
        listener: The socket.
        stop: Set when it is to stop.
    """
    serving = asyncio.create_task(server.serve([listener]), name="dashboard-serves")
    waiting = asyncio.create_task(stop.wait(), name="dashboard-stop")
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        waiting.cancel()
        await asyncio.wait({serving, waiting})
    serving.result()


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
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to our caller: uvicorn would raise them once more after the end."""
        yield
