"""`memory://`: a fakeredis server inside this process, and our scripts in the shape in which it runs them fast.

fakeredis compiles a script anew each time that it runs, which takes longer (0.2 to 0.6 ms for ours) than what most do.
What it keeps from one run to the next is Lua's table `redis`: there each script is put once, as a function, and what is
run is one line that calls it. A real Redis keeps scripts compiled by itself, and lets nobody write to that table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from protocol.lua import source
from protocol.pool import OneLoopPool

if TYPE_CHECKING:
    from fakeredis import FakeServer

_servers: dict[str, FakeServer] = {}


class MemoryPool(OneLoopPool):
    """Connections to the server of a URL: the same one for the same URL, for as long as nobody forgets it.

    Args:
        url: `memory://`, and a name if there is to be more than one server.
    """

    def __init__(self, url: str) -> None:
        from fakeredis import FakeAsyncRedisConnection  # noqa: PLC0415  # a slow import that only this needs

        super().__init__(connection_class=FakeAsyncRedisConnection, server=server(url))


def server(url: str) -> FakeServer:
    """Return the server of a URL; there is one from the first call on."""
    from fakeredis import FakeServer  # noqa: PLC0415

    # One step, as threads may share a server.
    return _servers.get(url) or _servers.setdefault(url, FakeServer())


def forget(url: str) -> None:
    """Let go of a URL's server: its data goes with its last client; no more scripts of ours run on it."""
    from fakeredis import FakeStrictRedis  # noqa: PLC0415

    forgotten = _servers.pop(url, None)
    if forgotten is not None:
        # Lua holds the functions that call the server, and the server holds Lua: no garbage collector sees that circle.
        FakeStrictRedis(server=forgotten).eval("redis, cjson = nil, nil", 0)


def definition(name: str) -> str:
    """Write a script as a function that stays; what `call` runs."""
    return f"redis.straggler_{name} = function()\n{source(name)}\nend"


@lru_cache
def call(name: str) -> str:
    """Write the script that runs the function; it finds its keys and arguments where Redis puts them for any script."""
    return f"return redis.straggler_{name}()"
