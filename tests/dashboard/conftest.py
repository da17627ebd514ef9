"""A dashboard on the test's Redis, asked without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from dashboard.access import Access
from dashboard.app import make_app
from producer.producer import Producer

TOKEN = "correct-horse"  # noqa: S105  # of the dashboards of these tests
ORIGIN = "http://127.0.0.1"

Visit = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def visit(producer: Producer) -> Visit:
    """Visit a dashboard as a browser would: `visit(token=TOKEN, as_actor=True)` has given the token."""

    @asynccontextmanager
    async def start(*, token: str | None = None, as_actor: bool = False) -> AsyncIterator[httpx.AsyncClient]:
        app = make_app(producer, Access(token, frozenset({"127.0.0.1"})))
        transport = httpx.ASGITransport(app)
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            client.headers.update(headers)
            if as_actor:
                assert (await client.post("/login", data={"token": token})).status_code == 303
            yield client

    return start


@pytest.fixture
async def client(visit: Visit) -> AsyncIterator[httpx.AsyncClient]:
    """Read a dashboard that allows no actions."""
    async with visit() as client:
        yield client
