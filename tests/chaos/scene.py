"""Whom faults befall."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.chaos.batches import Batches
from tests.chaos.nodes import Node
from tests.chaos.proxy import Proxy
from tests.chaos.store import Store


@dataclass(slots=True)
class Scene:
    """All that runs.

    Args:
        store: Redis.
        nodes: All nodes.
        cut_off: The node behind the proxy.
        proxy: The proxy.
        batches: Producers and collectors.
        redis_lock: Held by the one fault that befalls Redis.
        proxy_lock: Held by the one that cuts.
    """

    store: Store
    nodes: list[Node]
    cut_off: Node
    proxy: Proxy
    batches: Batches
    redis_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    proxy_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
