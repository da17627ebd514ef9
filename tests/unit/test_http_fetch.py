"""`http.fetch` against a real server on this machine."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from protocol.errors import ArgumentsError
from straggler import FailureResult, Producer, Settings, SuccessResult, TimeoutResult, embedded, with_result
from tests.conftest import PATIENCE
from workers.library.http import HTTPStatusError, Response, fetch

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A web server whose paths answer as a test says.

    Args:
        origin: `http://host:port`.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.answers: dict[str, Answer] = {}
        self.requests: list[web.Request] = []
        self.connections: set[Any] = set()

    def url(self, path: str, answer: Answer | web.Response | None = None) -> str:
        """Make a path answer so, and return its URL."""
        if isinstance(answer, web.Response):
            given = answer

            async def answer(_: web.Request) -> web.StreamResponse:
                return web.Response(status=given.status, headers=given.headers, body=given.body)

        if answer is not None:
            self.answers[path] = answer
        return self.origin + path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.requests.append(request)
        self.connections.add(request.transport.get_extra_info("peername"))
        return await self.answers[request.path](request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    made = Server("")
    app.router.add_route("*", "/{path:.*}", made.answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.origin = "http://{}:{}".format(*runner.addresses[0])
    yield made
    await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Answer every connection with these bytes; yields the server's URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}/".format(*server.sockets[0].getsockname())


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def stop_half_way(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"half of it")
    return await hang(request)


async def say_all(request: web.Request) -> web.StreamResponse:
    """Answer with what was sent."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return web.json_response({"method": request.method, "headers": headers, "body": await request.text()})


async def test_answer_is_returned_with_status_headers_body_and_url(server: Server) -> None:
    url = server.url("/page", web.Response(text="grüß dich", headers={"X-Kind": "page"}))

    response = await fetch(url)

    assert response.status == 200
    assert response.url == url
    assert response.headers["x-kind"] == "page"
    assert (response.body, response.encoding, response.truncated) == ("grüß dich", "utf-8", False)
    assert 0 < response.elapsed < 10


@pytest.mark.parametrize(
    ("content", "content_type", "body", "encoding"),
    [
        ("grüß".encode("latin-1"), "text/plain; charset=iso-8859-1", "grüß", "iso-8859-1"),
        ("grüß".encode(), "text/plain", "grüß", "utf-8"),
        ("grüß".encode("utf-16"), "text/plain; charset=utf-16", "grüß", "utf-16"),
        (b"", "image/png", "", "utf-8"),
    ],
)
async def test_text_is_decoded_by_the_charset_of_the_answer(
    server: Server, content: bytes, content_type: str, body: str, encoding: str
) -> None:
    url = server.url("/text", web.Response(body=content, headers={"Content-Type": content_type}))
    response = await fetch(url)
    assert (response.body, response.encoding) == (body, encoding)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"\x89PNG\r\n\x1a\n\xff", "image/png"),
        (b"zeros\0\0\0", "application/octet-stream"),
        ("grüß".encode("latin-1"), "text/plain"),
        (b"68656c6c6f", "text/plain; charset=hex"),
        (b"hello", "text/plain; charset=no-such-charset"),
        (b"+2AA-", "text/plain; charset=utf-7"),  # decodes to a lone surrogate, which cannot be JSON
    ],
)
async def test_what_is_no_text_comes_back_as_base64(server: Server, content: bytes, content_type: str) -> None:
    url = server.url("/binary", web.Response(body=content, headers={"Content-Type": content_type}))
    response = await fetch(url)
    assert response.encoding == "base64"
    assert base64.b64decode(response.body) == content


async def test_body_is_cut_at_the_limit_and_the_rest_is_never_fetched(server: Server) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    async with asyncio.timeout(PATIENCE):
        response = await fetch(server.url("/endless", endless), max_bytes=12_345)
    assert response.truncated
    assert response.body == "x" * 12_345


async def test_body_as_long_as_the_limit_is_whole(server: Server) -> None:
    response = await fetch(server.url("/exact", web.Response(text="12345")), max_bytes=5)
    assert (response.body, response.truncated) == ("12345", False)


async def test_body_that_pauses_at_the_limit_is_cut_all_the_same(server: Server) -> None:
    async def pause(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"12345")
        await asyncio.sleep(0.05)  # long enough for the client to see the first piece alone
        await response.write(b"6")
        return response

    response = await fetch(server.url("/pause", pause), max_bytes=5)
    assert (response.body, response.truncated) == ("12345", True)


@pytest.mark.parametrize("limit", [4, 5, 6])
async def test_cut_inside_a_character_leaves_the_character_out(server: Server, limit: int) -> None:
    url = server.url("/cut", web.Response(text="abc\N{GRINNING FACE}d"))
    response = await fetch(url, max_bytes=limit)
    assert (response.body, response.encoding, response.truncated) == ("abc", "utf-8", True)


async def test_cut_that_is_not_the_cause_of_a_bad_byte_gives_base64(server: Server) -> None:
    url = server.url("/cut", web.Response(body=b"abc\xffdefghi"))
    assert (await fetch(url, max_bytes=8)).encoding == "base64"


async def test_status_of_400_or_above_is_a_failure_that_names_status_and_url(server: Server) -> None:
    url = server.url("/broken", web.Response(status=500))

    result = await with_result(fetch(url), 10)

    assert isinstance(result, FailureResult)
    assert result.error_type == "workers.library.http.HTTPStatusError"
    assert result.message == f"500 Internal Server Error for {url}"


@pytest.mark.parametrize(("status", "fails"), [(399, False), (400, True), (404, True)])
async def test_failure_begins_at_400(server: Server, status: int, fails: bool) -> None:
    call = fetch(server.url("/status", web.Response(status=status)))
    if fails:
        with pytest.raises(HTTPStatusError) as caught:
            await call
        assert caught.value.status == status
    else:
        assert (await call).status == status


async def test_status_is_no_failure_where_it_is_not_to_be(server: Server) -> None:
    url = server.url("/broken", web.Response(status=503, text="come back later"))
    response = await fetch(url, raise_for_status=False)
    assert (response.status, response.body) == (503, "come back later")


async def test_server_that_never_answers_runs_into_the_jobs_timeout(server: Server) -> None:
    result = await with_result(fetch(server.url("/hang", hang)), 0.1)
    assert isinstance(result, TimeoutResult)
    assert (result.phase, result.stopped) == ("running", "cancelled")


@pytest.mark.parametrize("answer", [hang, stop_half_way])
async def test_read_timeout_is_a_failure_and_no_timeout_of_ours(server: Server, answer: Answer) -> None:
    result = await with_result(fetch(server.url("/silent", answer), read_timeout=0.05), 30)
    assert isinstance(result, FailureResult)
    assert result.error_type == "aiohttp.client_exceptions.SocketTimeoutError"


async def test_redirect_is_followed_to_its_end(server: Server) -> None:
    end = server.url("/end", web.Response(text="here"))
    url = server.url("/start", web.Response(status=302, headers={"Location": "/end"}))
    response = await fetch(url)
    assert (response.status, response.body, response.url) == (200, "here", end)


async def test_redirects_beyond_the_bound_are_a_failure(server: Server) -> None:
    url = server.url("/round", web.Response(status=302, headers={"Location": "/round"}))
    with pytest.raises(aiohttp.TooManyRedirects):
        await fetch(url, max_redirects=3)
    assert len(server.requests) == 3


async def test_redirect_is_the_answer_where_none_is_to_be_followed(server: Server) -> None:
    url = server.url("/start", web.Response(status=301, headers={"Location": "/end"}))
    response = await fetch(url, max_redirects=0)
    assert (response.status, response.headers["location"]) == (301, "/end")


async def test_post_sends_headers_and_a_body_of_text(server: Server) -> None:
    response = await fetch(server.url("/echo", say_all), "POST", headers={"X-Token": "abc"}, body="grüß")
    said = json.loads(response.body)
    assert (said["method"], said["headers"]["x-token"], said["body"]) == ("POST", "abc", "grüß")


@pytest.mark.parametrize("body", [{"name": "grüß"}, [1, 2], {}])
async def test_object_or_array_is_sent_as_json(server: Server, body: Any) -> None:
    response = await fetch(server.url("/echo", say_all), "PUT", body=body)
    said = json.loads(response.body)
    assert said["headers"]["content-type"] == "application/json"
    assert json.loads(said["body"]) == body


async def test_headers_of_any_bytes_come_back_as_text_and_repeated_ones_joined() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Odd: a\xffb\r\nVary: a\r\nvary: b\r\n\r\n"
    async with raw_server(answer) as url:
        response = await fetch(url)
    assert response.headers["x-odd"] == "a\N{REPLACEMENT CHARACTER}b"
    assert response.headers["vary"] == "a, b"


async def test_status_without_a_reason_is_named_all_the_same() -> None:
    async with raw_server(b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n") as url:
        with pytest.raises(HTTPStatusError, match=r"^599 \(no reason given\) for http://127"):
            await fetch(url)


async def test_server_that_is_not_there_is_a_failure_of_one_line(unused_tcp_port: int) -> None:
    result = await with_result(fetch(f"http://127.0.0.1:{unused_tcp_port}/"), 10)
    assert isinstance(result, FailureResult)
    assert result.error_type == "aiohttp.client_exceptions.ClientConnectorError"
    assert "\n" not in result.message


@pytest.mark.parametrize(
    "url", ["example.org", "ftp://example.org/", "http://", "http://a:b/", "http://[::1", "", "/x"]
)
async def test_bad_url_is_refused_at_submission_in_one_line(url: str, producer: Producer) -> None:
    with pytest.raises(ArgumentsError, match=r"^job 0: http\.fetch: url: .*, got '[^\n]*'$"):
        await producer.submit(fetch.map([url]))


@pytest.mark.parametrize(
    "arguments", [{"method": "GET /"}, {"read_timeout": 0}, {"max_bytes": -1}, {"headers": "{x"}, {"body": 1.5}]
)
def test_other_bad_parameters_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentsError, match=f"^http.fetch: {next(iter(arguments))}"):
        fetch.signature.encode_arguments(("http://example.org",), arguments)


def test_cells_of_a_csv_file_are_turned_into_parameters() -> None:
    cells = {"url": " http://example.org ", "method": "post", "headers": '{"X-A": "b"}', "max_bytes": "5"}
    encoded = fetch.signature.encode_arguments((), cells)
    assert encoded == (
        b'"kwargs":{"url":"http://example.org","method":"POST","headers":{"X-A":"b"},"max_bytes":5}'
    )  # fmt: skip


async def test_jobs_of_a_worker_share_one_connection(server: Server, redis_url: str) -> None:
    url = server.url("/page", web.Response(text="page"))
    async with embedded(Settings(concurrency=1), url=redis_url) as producer:
        values = await (await producer.submit(fetch.map([url] * 20))).gather()
    assert all(isinstance(value, Response) and value.body == "page" for value in values)
    assert len(server.requests) == 20
    assert len(server.connections) == 1


async def test_no_job_sees_the_cookies_of_another(server: Server, redis_url: str) -> None:
    server.origin = server.origin.replace("127.0.0.1", "localhost")  # aiohttp takes no cookies from bare addresses
    first = server.url("/login", web.Response(headers={"Set-Cookie": "session=secret"}))
    second = server.url("/echo", say_all)
    async with embedded(Settings(concurrency=1), url=redis_url) as producer:
        _, said = await (await producer.submit(fetch.map([first, second]))).results()
    assert isinstance(said, SuccessResult)
    assert "cookie" not in json.loads(said.value.body)["headers"]


async def test_connections_are_as_many_as_the_workers_slots(server: Server, redis_url: str) -> None:
    url, all_there = "", asyncio.Event()

    async def wait_for_all(_: web.Request) -> web.StreamResponse:
        if len(server.connections) == 150:  # aiohttp's own limit is 100
            all_there.set()
        await all_there.wait()
        return web.Response()

    url = server.url("/together", wait_for_all)
    async with embedded(Settings(concurrency=150), url=redis_url) as producer:
        batch = await producer.submit(fetch.map([url] * 150), timeout=20)
        assert {result.status for result in await batch.results()} == {"success"}


async def test_nothing_is_left_open_by_a_worker_that_ends_amid_fetches(
    server: Server, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    opened: list[aiohttp.ClientSession] = []
    start = aiohttp.ClientSession.__init__

    def remember(session: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> None:
        start(session, *args, **kwargs)
        opened.append(session)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", remember)
    page, hanging = server.url("/page", web.Response(text="page")), server.url("/hang", hang)
    async with embedded(Settings(), url=redis_url) as producer:
        batch = await producer.submit(fetch.map([page, hanging]))
        await batch.wait(return_when="FIRST_COMPLETED")
    assert [session.closed for session in opened] == [True]
    gc.collect()  # 'Unclosed client session' is a warning, and so an error


async def test_call_outside_a_worker_closes_its_own_session(server: Server) -> None:
    url = server.url("/page", web.Response(text="page"))
    await fetch(url)
    await fetch(url)
    assert len(server.connections) == 2
    gc.collect()
