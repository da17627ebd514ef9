"""The dashboard as an ASGI application: routes, what stands before them, and what errors look like."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import actions, live, login, pages
from dashboard.access import HEADERS, Access
from dashboard.live import PATIENCE
from dashboard.rendering import prepare
from dashboard.state import State
from producer.producer import Producer
from protocol.errors import BatchNotFoundError, StragglerError

logger = logging.getLogger(__name__)

Page = Callable[[Request], Awaitable[Response]]

_STATIC = Path(__file__).parent / "static"


def make_app(producer: Producer, access: Access | None = None) -> Starlette:
    """Make the application.

    Args:
        producer: Whose Redis is shown; opened and closed by the caller.
        access: Who may do what; by default everybody may read and nobody may act.
    """
    access = access or Access()
    state = State.of(producer, access)
    prepare()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await state.close()

    app = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            HTTPException: _refused,
            BatchNotFoundError: _not_found,
            StragglerError: _broken,
            RedisError: _broken,
            TimeoutError: _away,
        },
    )
    app.state.dashboard = state
    return app


class Guard:
    """Before everything: a host that is not ours is refused; every answer carries the security headers.

    Args:
        app: What is guarded.
        access: Which hosts are ours.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        host = Request(scope).headers.get("host", "")
        if self._access.knows_host(host):
            await self._app(scope, receive, send_guarded)
        else:
            text = f"This dashboard does not go by the name {host!r}: start it with --allow-host to let it."
            await PlainTextResponse(text, 421)(scope, receive, send_guarded)


def _routes() -> list[BaseRoute]:
    return [
        Route("/", _in_time(pages.batches)),
        Route("/live", live.batches_events),
        Route("/batches/{batch_id}", _in_time(pages.batch)),
        Route("/batches/{batch_id}/live", live.batch_events),
        Route("/batches/{batch_id}/find", _in_time(pages.find_job)),
        Route("/batches/{batch_id}/jobs/{index:int}", _in_time(pages.one_job)),
        Route("/workers", _in_time(pages.floor)),
        Route("/workers/live", live.floor_events),
        Route("/metrics", _in_time(pages.metrics)),
        Route("/login", login.login_page),
        Route("/login", login.log_in, methods=["POST"]),
        Route("/logout", login.log_out, methods=["POST"]),
        Route("/batches/{batch_id}/cancel", actions.cancel_batch, methods=["POST"]),
        Route("/batches/{batch_id}/retry", actions.retry, methods=["POST"]),
        Route("/batches/{batch_id}/extend", actions.extend, methods=["POST"]),
        Route("/batches/{batch_id}/jobs/{index:int}/cancel", actions.cancel_job, methods=["POST"]),
        Route("/workers/drain", actions.drain_worker, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]


def _in_time(handler: Page) -> Page:
    """Let nobody wait for a Redis that is away."""

    async def handle(request: Request) -> Response:
        async with asyncio.timeout(PATIENCE):
            return await handler(request)

    return handle


async def _not_found(request: Request, error: Exception) -> Response:
    text = f"{error} It may be past its lifetime, or deleted."
    return pages.page(request, "message.html", 404, title="No such batch", text=text)


async def _refused(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    text = error.detail if isinstance(error, HTTPException) else str(error)
    title = "No such page" if code == 404 else "That cannot be"
    return pages.page(request, "message.html", code, title=title, text=text)


async def _broken(request: Request, error: Exception) -> Response:
    logger.warning("%s: %s", request.url.path, error, extra={"event": "dashboard.error"})
    return pages.page(request, "message.html", 500, title="This cannot be shown", text=str(error))


async def _away(request: Request, error: Exception) -> Response:
    text = "Redis does not answer. This page comes back by itself when it does."
    return pages.page(request, "message.html", 503, title="Redis is away", text=text, again=True)
