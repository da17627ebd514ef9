"""Forms that a page of this dashboard has sent: refused unless they come from one, by somebody who may act."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from dashboard.access import Session, is_csrf_token, is_same_origin
from dashboard.pages import session_of, state_of

_LONGEST = 16 * 1024
_KIND = "application/x-www-form-urlencoded"

Form = Mapping[str, str]


async def read_form(request: Request) -> Form:
    """Read a form from a page of ours.

    Raises:
        HTTPException: If actions are not allowed at all, or it comes from elsewhere, or is none.
    """
    if not state_of(request).access.allows_actions:
        raise HTTPException(403, "This dashboard only shows: start it with --allow-actions to let it act.")
    if not is_same_origin(request.headers):
        raise HTTPException(403, "This did not come from a page of this dashboard.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != _KIND:
        raise HTTPException(415, "This is no form of this dashboard's.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            raise HTTPException(413, f"This form holds more than {_LONGEST:,} bytes.")
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


async def read_action(request: Request) -> tuple[Form, Session]:
    """Read a form that asks for an action.

    Raises:
        HTTPException: As `read_form`; or if its sender has not given the token, or has no token of that session's.
    """
    form, session = await read_form(request), session_of(request)
    if session is None:
        raise HTTPException(401, "Actions need the token: unlock them first.")
    if not is_csrf_token(session, form.get("csrf", "")):
        raise HTTPException(403, "This page is from an earlier session: load it again.")
    return form, session
