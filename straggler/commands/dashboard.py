"""`dashboard`: the batches of a Redis in a browser."""

from __future__ import annotations

import asyncio
import secrets
import signal
from importlib.util import find_spec

from protocol.errors import UsageError
from straggler.commands.logs import set_up_logs
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say

# Modules of the extra, each named as it is imported.
_NEEDED = ("starlette", "uvicorn", "jinja2")
_SHORTEST_TOKEN = 8


def dashboard(
    place: Place, host: str, port: int, *, allow_actions: bool, token: str | None, hosts: list[str], verbose: bool
) -> int:
    """Serve until told to stop."""
    set_up_logs(place.settings, verbose=verbose)
    token = _token(place, token, allow_actions=allow_actions or place.settings.dashboard_actions)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"the dashboard needs {', '.join(missing)}: pip install 'straggler[dashboard]'")
    return run_loop(_serve(place, host, port, token, hosts))


async def _serve(place: Place, host: str, port: int, token: str | None, hosts: list[str]) -> int:
    from dashboard.access import Access, is_loopback, known_hosts  # noqa: PLC0415  # of an extra
    from dashboard.server import get_ready, listen, serve  # noqa: PLC0415

    async with place.producer() as producer:
        with listen(host, port) as listener:
            server = await get_ready(producer, Access(token, known_hosts(host, hosts)))
            bound = listener.getsockname()[1]
            name = f"[{host}]" if ":" in host else host
            say(f"dashboard on http://{name}:{bound}/ (Ctrl-C stops it)")
            if not is_loopback(host):
                say("everybody who reaches this address may read all batches, their arguments and values included")
            await serve(server, listener, _told_to_stop())
    return SUCCEEDED


def _told_to_stop() -> asyncio.Event:
    """Return what SIGTERM and Ctrl-C set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    return stop


def _token(place: Place, given: str | None, *, allow_actions: bool) -> str | None:
    """Find the token that lets visitors act; None if none does.

    Raises:
        UsageError: If it cannot be.
    """
    if not allow_actions:
        if given is not None:
            raise UsageError("--token is for --allow-actions: without it nobody may act")
        return None
    known = place.settings.dashboard_token
    token = given if given is not None else known.get_secret_value() if known is not None else None
    if token is None:
        token = secrets.token_urlsafe(16)
        say(f"the token for actions: {token}")
    elif len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"--token of {len(token)} characters can be guessed: use at least {_SHORTEST_TOKEN}")
    return token
