"""Live change: server-sent events that carry the parts of a page that differ from what was sent before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from dashboard.pages import batch_list, floor_list, follower_of, parts_of, state_of
from dashboard.parts import Part, Parts
from protocol.errors import BatchNotFoundError, StragglerError

# A page is looked at anew so often, s.
_INTERVAL = 1.0
_LIST_INTERVAL = 2.0
# A Redis that does not answer within this time, s, is said to be away; the calls to it go on.
PATIENCE = 5.0
# Looks without news until the connection is used all the same, so that whoever stands between us keeps it open.
_QUIET = 15
# Pages that are kept live at a time; beyond them a page is as it was when it was loaded.
_MOST_STREAMS = 200
_TYPE = "text/event-stream"

Look = Callable[[], Awaitable[list[Part]]]


async def batch_events(request: Request) -> Response:
    """A batch's page."""

    async def look() -> list[Part]:
        return parts_of(request, await follower_of(request))

    return _stream(request, look, _INTERVAL)


async def batches_events(request: Request) -> Response:
    """The list of batches."""
    return _stream(request, _one("list", lambda: batch_list(request)), _LIST_INTERVAL)


async def floor_events(request: Request) -> Response:
    """Workers and queues."""
    return _stream(request, _one("list", lambda: floor_list(request)), _LIST_INTERVAL)


def _one(name: str, draw: Callable[[], Awaitable[str]]) -> Look:
    async def look() -> list[Part]:
        return [Part(name, None, draw)]

    return look


def _stream(request: Request, look: Look, interval: float) -> Response:
    streams = state_of(request).streams
    if len(streams) >= _MOST_STREAMS:
        text = f"{_MOST_STREAMS} pages are live already"
        return PlainTextResponse(text, 503, {"Retry-After": "60"})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_counted(streams, events(look, interval)), media_type=_TYPE, headers=headers)


async def _counted(streams: set[object], sent: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    streams.add(sent)
    try:
        async with aclosing(sent):
            async for event in sent:
                yield event
    finally:
        streams.discard(sent)


async def events(look: Look, interval: float) -> AsyncGenerator[str, None]:
    """Yield what changes, until the batch is gone."""
    drawn, quiet = Parts(), 0
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                changes = await drawn.changed(await look())
        except TimeoutError:
            yield _event("away", "Redis does not answer")
        except BatchNotFoundError:
            yield _event("gone", "This batch is no longer in Redis.")
            return
        except (StragglerError, RedisError) as error:
            yield _event("away", str(error))
        else:
            quiet = 0 if changes else quiet + 1
            if changes:
                yield _event("parts", changes)
            elif quiet % _QUIET == 0:
                yield ": still here\n\n"
        await asyncio.sleep(interval)


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
