"""Give the token, get a session in which actions are allowed; and end it."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import COOKIE
from dashboard.forms import read_action, read_form
from dashboard.pages import page, state_of

# A wrong token is answered after this time, s: trying them all shall take for ever.
_PAUSE = 0.3


async def login_page(request: Request) -> Response:
    """Ask for the token."""
    if not state_of(request).access.allows_actions:
        raise HTTPException(404, "This dashboard only shows: start it with --allow-actions to let it act.")
    return page(request, "login.html", back=_local(request.query_params.get("back", "/")), problem="")


async def log_in(request: Request) -> Response:
    """Begin a session."""
    form, access = await read_form(request), state_of(request).access
    back = _local(form.get("back", "/"))
    if access.is_throttled:
        return page(request, "login.html", 429, back=back, problem="Too many wrong tokens: wait a minute.")
    session_id = access.log_in(form.get("token", ""))
    if session_id is None:
        await asyncio.sleep(_PAUSE)
        return page(request, "login.html", 403, back=back, problem="That is not the token.")
    response = RedirectResponse(back, 303)
    is_https = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
    response.set_cookie(COOKIE, session_id, httponly=True, samesite="strict", secure=is_https, path="/")
    return response


async def log_out(request: Request) -> Response:
    """End the session."""
    await read_action(request)
    state_of(request).access.log_out(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


def _local(path: str) -> str:
    """Go nowhere but to a page of ours."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
