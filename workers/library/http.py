"""`http.fetch`: make one HTTP request, and return the answer.

All fetches of a worker share one session and its connections, closed with the worker. How many run at a time is the
worker's matter (its slots), how long one may take the job's (its timeout): the session itself sets no limit to either.
"""

from __future__ import annotations

import time
from base64 import b64encode
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any
from urllib.parse import urlsplit

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import from_json

from workers.calling.resources import shared
from workers.registry import job

# No text encoding in use takes more than four bytes a character: a cut can leave three of them without the fourth.
_LONGEST_REST = 3


class HTTPStatusError(Exception):
    """The server answered with 400 or above; `500 Internal Server Error for http://...`."""

    def __init__(self, status: int, reason: str, url: str) -> None:
        super().__init__(f"{status} {reason or '(no reason given)'} for {url}")
        self.status = status
        self.url = url


class Response(BaseModel):
    """What the server answered.

    Args:
        status: The status code.
        url: Where the answer came from, after redirects.
        headers: By name in lower case; the values of a repeated header are joined by `, `.
        body: The body, decompressed: text, or base64 where it is none.
        encoding: How the body's bytes became text: the charset, or `base64`.
        truncated: Whether the body was longer than `max_bytes`.
        elapsed: From the request to the end of the body, s.
    """

    model_config = ConfigDict(frozen=True)

    status: int
    url: str
    headers: dict[str, str]
    body: str
    encoding: str
    truncated: bool
    elapsed: float


def _check_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL starts with http:// or https:// and names a host, as https://example.org/page")
    _ = parts.port  # raises where it is none
    return url.strip()


def _read_cell(value: Any) -> Any:
    return from_json(value) if isinstance(value, str) else value


URL = Annotated[str, AfterValidator(_check_url)]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Za-z-]+$", to_upper=True)]
Headers = Annotated[dict[str, str], BeforeValidator(_read_cell)]
Silence = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@job(name="http.fetch")
async def fetch(
    url: URL,
    method: Method = "GET",
    headers: Headers | None = None,
    body: str | dict[str, Any] | list[Any] | None = None,
    read_timeout: Silence | None = None,
    max_bytes: Annotated[int, Field(ge=0)] = 65_536,
    max_redirects: Annotated[int, Field(ge=0)] = 10,
    raise_for_status: bool = True,  # noqa: FBT001, FBT002  # given by name in every file's rows
) -> Response:
    """Make one HTTP request, and return the answer.

    A body comes back as text where it is text: where its bytes decode, strictly, by the charset that the server names,
    or by UTF-8 where it names none, and hold no NUL. Any other body comes back as base64, so nothing is lost.

    Args:
        url: `http://` or `https://`.
        method: Any of HTTP's.
        headers: To send; in a CSV file a cell with a JSON object.
        body: To send: text as UTF-8, an object or array as JSON.
        read_timeout: Longest silence of the server, s; past it the job fails, whatever its own timeout.
        max_bytes: What is read of the answer's body; the default's JSON is well below the limit of a job's result.
        max_redirects: How many are followed; 0 follows none and returns the redirect itself.
        raise_for_status: Whether an answer of 400 or above is a failure; else it is returned like any other.

    Raises:
        HTTPStatusError: If the server answered with 400 or above, unless told otherwise.
        aiohttp.SocketTimeoutError: If the server was silent for longer than `read_timeout`.
        aiohttp.TooManyRedirects: If there were more than `max_redirects`.
        aiohttp.ClientError: If there was no answer, or a broken one.
    """
    started = time.monotonic()
    async with (
        shared(_open_session) as session,
        session.request(
            method,
            url,
            headers=headers,
            timeout=ClientTimeout(total=None, sock_read=read_timeout),
            allow_redirects=max_redirects > 0,
            max_redirects=max_redirects,
            **({"data": body} if isinstance(body, str) else {"json": body}),
        ) as response,
    ):
        if raise_for_status and response.status >= 400:
            raise HTTPStatusError(response.status, response.reason or "", str(response.url))
        content, truncated = await _read(response, max_bytes)
    text, encoding = _decode(content, response.charset or "utf-8", truncated=truncated)
    return Response(
        status=response.status,
        url=str(response.url),
        headers=_plain(response),
        body=text,
        encoding=encoding,
        truncated=truncated,
        elapsed=time.monotonic() - started,
    )


def _open_session() -> AbstractAsyncContextManager[ClientSession]:
    # No limit of connections, as the worker's slots are one; no cookies, as one job's are no business of another's.
    return ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())


async def _read(response: ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Read a body up to a limit, and say whether there was more of it; the rest is never fetched."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            response.close()
            break
    return b"".join(pieces)[:limit], size > limit


def _decode(content: bytes, charset: str, *, truncated: bool) -> tuple[str, str]:
    """Turn bytes into text; returns it with its encoding."""
    try:
        text = _decode_text(content, charset, truncated=truncated)
        text.encode()  # a lone surrogate (UTF-7 can make one) cannot be JSON
    except (LookupError, ValueError):  # no such charset, or no text in it
        return b64encode(content).decode(), "base64"
    return text, charset


def _decode_text(content: bytes, charset: str, *, truncated: bool) -> str:
    try:
        text = content.decode(charset)
    except UnicodeDecodeError as error:
        if not truncated or error.start < len(content) - _LONGEST_REST:
            raise
        text = content[: error.start].decode(charset)
    if "\0" in text:
        raise ValueError("text holds no NUL")
    return text


def _plain(response: ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        # What is not UTF-8 comes as surrogates, which cannot be JSON.
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        headers[name.lower()] = f"{headers[name.lower()]}, {text}" if name.lower() in headers else text
    return headers
