"""All of straggler in one process, its event loop in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from protocol.errors import UsageError
from protocol.settings import Settings
from straggler import embedded as embedded_here  # the module of that name, imported, would stand in its place
from straggler.sync.producer import Producer


@contextmanager
def embedded(settings: Settings | None = None, *, url: str | None = None) -> Iterator[Producer]:
    """Yield a producer whose jobs run in a thread of this very process; nothing is left behind.

    Args:
        settings: Read from the environment if not given.
        url: A Redis to work with, in place of one in memory.
    """
    settings = settings or Settings.read()
    place = embedded_here(settings, url=url)
    made = Producer(url or "memory://", settings=settings)
    try:
        made.twin = made.portal.call(place.__aenter__())
        yield made
    finally:
        with suppress(UsageError):
            made.portal.call(place.__aexit__(None, None, None))
        made.close()
