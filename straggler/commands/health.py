"""`worker --check`: whether this host's worker is well."""

from __future__ import annotations

import socket

from protocol import keys
from protocol.errors import StragglerError
from protocol.reach import connected
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say


def check_health(place: Place, *, as_json: bool) -> int:
    """Find out whether this host's worker is well, by the health key that arq's worker keeps."""
    return run_loop(_check(place.url, place.queue or place.settings.queue, as_json=as_json))


async def _check(url: str, queue: str, *, as_json: bool) -> int:
    host = socket.gethostname()
    async with connected(url) as redis:
        health = await redis.get(keys.health(f"{queue}:{host}"))
    said = None if health is None else health.decode(errors="backslashreplace")
    if as_json:
        print_json({"healthy": said is not None, "host": host, "queue": queue, "says": said})
    if said is None:
        raise StragglerError(f"no worker of {host} is alive on queue {queue!r}: its health key in Redis has lapsed")
    if not as_json:
        say(f"healthy: {said}")
    return SUCCEEDED
