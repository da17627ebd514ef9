"""The pages that everybody may read."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from dashboard.access import Session
from dashboard.drawings import describe, stack
from dashboard.follower import Follower
from dashboard.job import read_job_of
from dashboard.parts import Part, Parts, batch_parts
from dashboard.rendering import render
from dashboard.search import find_jobs, searched
from dashboard.state import State
from dashboard.table import KEY
from producer.overview.floor import read_queues_in_use
from producer.overview.metrics import CONTENT_TYPE, exposition
from producer.overview.running import read_running
from protocol.batches import BatchStatus
from protocol.running import RunningJob

_LONGEST_QUERY = 200
# A page waits so long, s, for the results of a small batch to be read; those of a large one come to it live.
_CATCH_UP = 0.6


def state_of(request: Request) -> State:
    """Find the dashboard's state."""
    state: State = request.app.state.dashboard
    return state


def session_of(request: Request) -> Session | None:
    """Find who asks, if they have given the token."""
    return state_of(request).access.session(request.cookies)


def page(request: Request, template: str, status_code: int = 200, **context: Any) -> Response:
    """Draw a whole page."""
    session, access = session_of(request), state_of(request).access
    who = {"session": session, "csrf": session.csrf if session else "", "allows_actions": access.allows_actions}
    html = render(template, **who, path=request.url.path, notices=_take_notices(session), **context)
    return HTMLResponse(html, status_code, {"Cache-Control": "no-store"})


def _take_notices(session: Session | None) -> list[str]:
    if session is None:
        return []
    notices = session.notices.copy()
    session.notices.clear()
    return notices


async def batches(request: Request) -> Response:
    """Newest first, searched."""
    return page(request, "batches.html", query=_query(request), list=Markup(await batch_list(request)))  # noqa: S704  # drawn by a template


async def batch_list(request: Request) -> str:
    """Draw one page of batches."""
    state, query, number = state_of(request), _query(request), number_of(request, "page")
    listing = await state.catalogue.page(query, number)
    now = state.producer.clock.now()
    rows = [_row(state, status, now) for status in listing.batches]
    return render("batches/list.html", rows=rows, listing=listing, query=query, number=number, now=now)


def _row(state: State, status: BatchStatus, now: float) -> dict[str, Any]:
    speed = state.pace.see(status, now)
    return {"status": status, "stack": stack(status), "in_words": describe(status), "speed": speed}


async def batch(request: Request) -> Response:
    """One batch."""
    follower = await follower_of(request)
    await follower.catch_up(_CATCH_UP)
    drawn = await Parts().changed(parts_of(request, follower))
    parts = {name: Markup(html) for name, html in drawn.items()}  # noqa: S704  # drawn by templates
    query = f"?{request.url.query}" if request.url.query else ""
    return page(request, "batch.html", batch=follower.status, options=follower.options, parts=parts, query=query)


async def one_job(request: Request) -> Response:
    """One job of a batch."""
    follower, index = await follower_of(request), int(request.path_params["index"])
    await follower.catch_up(_CATCH_UP)
    life = await read_job_of(state_of(request).producer, follower, index)
    shown: dict[str, Any] = {"batch": follower.status, "follower": follower, "digest": follower.digest}
    return page(request, "job.html", index=index, life=life, **shown)


async def find_job(request: Request) -> Response:
    """Go to the job of a number or a key, or to those whose key holds what was given."""
    follower, wanted = await follower_of(request), request.query_params.get("job", "").strip()[:_LONGEST_QUERY]
    found, at = await find_jobs(state_of(request).producer, follower, wanted), f"/batches/{follower.batch_id}"
    if len(found) == 1:
        return RedirectResponse(f"{at}/jobs/{found[0]}", 303)
    if found:
        return RedirectResponse(f"{at}?show={quote(KEY + wanted)}#results", 303)
    text = f"No job has the number “{wanted}”, and no key holds it. Searched: {searched(follower)}."
    return page(request, "message.html", 404, title="No such job", text=text, back=at)


async def floor(request: Request) -> Response:
    """Workers and queues."""
    return page(request, "floor.html", list=Markup(await floor_list(request)))  # noqa: S704  # drawn by a template


async def floor_list(request: Request) -> str:
    """Draw workers and queues."""
    state = state_of(request)
    listing = await state.catalogue.page("", 0)
    now = state.producer.clock.now()
    queues = await read_queues_in_use(state.producer.redis, {state.producer.queue}, now)
    jobs: Counter[str] = Counter()
    for status in listing.batches:
        jobs[status.queue] += status.queued
    running = await _running_by_worker(state, [queue.name for queue in queues if queue.workers])
    session = session_of(request)
    csrf = session.csrf if session else ""
    return render("floor/list.html", queues=queues, jobs=jobs, now=now, running=running, csrf=csrf)


async def _running_by_worker(state: State, queues: list[str]) -> dict[str, list[RunningJob]]:
    found: dict[str, list[RunningJob]] = {}
    for queue in queues:
        for job in await read_running(state.producer.redis, queue):
            found.setdefault(job.worker, []).append(job)
    return found


async def metrics(request: Request) -> Response:
    """What Redis knows, for Prometheus."""
    if find_spec("prometheus_client") is None:
        return PlainTextResponse("no metrics here: pip install 'straggler[metrics]'\n", 501)
    return Response(await exposition(state_of(request).producer), media_type=CONTENT_TYPE)


async def follower_of(request: Request) -> Follower:
    """Find what is known of the batch that a request names.

    Raises:
        BatchNotFoundError: If there is none.
    """
    return await state_of(request).followers.get(request.path_params["batch_id"])


def parts_of(request: Request, follower: Follower) -> list[Part]:
    """Name the parts that a request wants to see of a batch."""
    session = session_of(request)
    show = request.query_params.get("show", "")
    return batch_parts(state_of(request), follower, show, number_of(request, "page"), session.csrf if session else "")


def number_of(request: Request, name: str) -> int:
    """Read a number in a query; 0 if it is none."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _query(request: Request) -> str:
    return request.query_params.get("q", "").strip()[:_LONGEST_QUERY]
