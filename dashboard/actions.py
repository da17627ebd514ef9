"""What who has given the token may do: cancel a batch or a job, run jobs again, extend a deadline, drain a worker.

Each action is a form of a page of ours (`dashboard.forms`), leads back to a page, and says there what it came to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import Session
from dashboard.fingerprints import Fingerprint
from dashboard.follower import Follower
from dashboard.forms import Form, read_action
from dashboard.pages import follower_of, state_of
from dashboard.words import LABELS, brief, number
from producer.batch import Batch
from producer.overview.floor import drain
from producer.redrives.origins import UNSUCCESSFUL
from protocol.errors import StragglerError, UsageError

_REASON = "cancelled on the dashboard"
# A redrive of very many jobs goes on by itself after this time, s.
_PATIENCE = 2.0
_ENDED = {"timeout": "timed out", "failure": "failed", "cancelled": "were cancelled", "lost": "were lost"}

Act = Callable[[Request, Form, Session], Awaitable[str]]


def action(act: Act) -> Callable[[Request], Awaitable[Response]]:
    """Make a handler of what returns the page that it leads to."""

    async def handle(request: Request) -> Response:
        form, session = await read_action(request)
        path = await act(request, form, session)
        state_of(request).followers.expire(request.path_params.get("batch_id", ""))
        return RedirectResponse(path, 303)

    return handle


@action
async def cancel_batch(request: Request, form: Form, session: Session) -> str:
    """Cancel what has no result yet."""
    batch = await _batch(request)
    count = await _tried(session, batch.cancel(reason=form.get("reason", "").strip() or _REASON))
    if count is not None:
        session.notices.append(f"Cancelled: {_jobs(count)}." if count else "All jobs had their result.")
    return _path(batch.id)


@action
async def cancel_job(request: Request, form: Form, session: Session) -> str:
    """Cancel one job."""
    batch, index = await _batch(request), int(request.path_params["index"])
    count = await _tried(session, batch.cancel([index], reason=form.get("reason", "").strip() or _REASON))
    if count is not None:
        session.notices.append("The job was cancelled." if count else "The job had its result.")
    return f"{_path(batch.id)}/jobs/{index}"


@action
async def retry(request: Request, form: Form, session: Session) -> str:
    """Run jobs again, in a new batch: those of a status, of a fingerprint, or one."""
    batch, follower = await _batch(request), await follower_of(request)
    try:
        what, chosen = _choose(follower, form)
        options = _options(form)
    except UsageError as error:
        session.notices.append(str(error))
        return _path(batch.id)
    # A form that is sent twice adds nothing twice.
    words = (session.csrf, batch.id, str(follower.status.done), repr(sorted(form.items())))
    new_id = sha256("\0".join(words).encode(errors="replace")).hexdigest()[:16]
    work = asyncio.create_task(batch.retry(batch_id=new_id, **chosen, **options), name=f"dashboard-redrive-{new_id}")
    state_of(request).keep(work)
    done, _ = await asyncio.wait({work}, timeout=_PATIENCE)
    if not done:
        work.add_done_callback(lambda late: _tell(session, late))
        session.notices.append(f"On their way as batch {new_id}: {what}.")
        return _path(batch.id)
    if await _tried(session, work) is None:
        return _path(batch.id)
    session.notices.append(f"Sent again, as this batch: {what}.")
    return _path(new_id)


@action
async def extend(request: Request, form: Form, session: Session) -> str:
    """Move the deadline."""
    batch = await _batch(request)
    try:
        deadline = _seconds("deadline", form.get("deadline", "").strip())
        await batch.extend(deadline=deadline)
    except StragglerError as error:
        session.notices.append(str(error))
    else:
        session.notices.append(f"The deadline is in {brief(deadline)}.")
    return _path(batch.id)


@action
async def drain_worker(request: Request, form: Form, session: Session) -> str:
    """Let a worker end what it runs, and leave."""
    producer, worker_id = state_of(request).producer, form.get("worker", "")
    if await drain(producer.redis, worker_id, producer.clock.now()):
        session.notices.append(f"Worker {worker_id} takes no more jobs, and leaves when those that run have ended.")
    else:
        session.notices.append(f"Worker {worker_id} is not there any more.")
    return "/workers"


async def _batch(request: Request) -> Batch[Any]:
    return await state_of(request).producer.attach(request.path_params["batch_id"])


async def _tried(session: Session, work: Awaitable[Any]) -> Any:
    """Do it; None if it cannot be, which the next page says."""
    try:
        return await work
    except StragglerError as error:
        session.notices.append(str(error))
        return None


def _tell(session: Session, work: asyncio.Task[Any]) -> None:
    """Say what has become of an action that went on."""
    error = None if work.cancelled() else work.exception()
    if error is not None:
        session.notices.append(str(error))


def _choose(follower: Follower, form: Form) -> tuple[str, dict[str, Any]]:
    """Read which jobs are to run again: in words, and as `Batch.retry` takes it.

    Raises:
        UsageError: If that cannot be.
        HTTPException: If the form is none of ours.
    """
    what = form.get("what", "")
    if what in UNSUCCESSFUL:
        count = getattr(follower.status, what)
        return f"{_jobs(count)} that {_ENDED[what]}", {"statuses": (what,)}
    if what.isdecimal():
        return f"job {what}", {"indexes": [int(what)]}
    group = follower.digest.group(what)
    if group is None:
        raise HTTPException(400, "These jobs are not known any more: load the page again.")
    if follower.digest.count < follower.status.done:
        raise UsageError("The batch's results are still being read: try again in a moment.")
    indexes = follower.digest.index.jobs(group.rows)
    return f"{_jobs(len(indexes))} that {_ended(group.fingerprint)}", {"indexes": indexes}


def _jobs(count: int) -> str:
    return f"{number(count)} {'job' if count == 1 else 'jobs'}"


def _ended(mark: Fingerprint) -> str:
    return f"{_ENDED.get(mark.status, LABELS[mark.status])} with {mark.kind}"


def _options(form: Form) -> dict[str, Any]:
    """Read what is to be other than it was.

    Raises:
        UsageError: If the timeout is no number.
    """
    text = form.get("timeout", "").strip()
    return {"timeout": _seconds("timeout", text)} if text else {}


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} is no number of seconds") from None


def _path(batch_id: str) -> str:
    return f"/batches/{quote(batch_id, safe='')}"
