"""Who may do what: forged, foreign and anonymous requests are refused, and every answer carries the headers."""

from __future__ import annotations

import httpx
import pytest

from dashboard import access as access_module
from dashboard.access import HEADERS, Access, is_loopback, is_same_origin, known_hosts
from tests.dashboard.conftest import TOKEN, Visit

# ---- headers


@pytest.mark.parametrize(
    "path", ["/", "/workers", "/nowhere", "/static/live.js", "/static/nothing.js", "/login", "/live/x"]
)
async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


def test_policy_allows_no_inline_code_and_no_other_host() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_pages_hold_no_inline_code_and_name_no_other_host(client: httpx.AsyncClient) -> None:
    for path in ("/", "/workers", "/nowhere"):
        html = (await client.get(path)).text
        assert " style=" not in html
        assert " onclick=" not in html
        assert html.count("<script") == 1
        assert '<script src="/static/live.js" defer></script>' in html


# ---- hosts


@pytest.mark.parametrize(
    ("host", "further", "known", "unknown"),
    [
        ("127.0.0.1", [], ["127.0.0.1", "localhost:8080", "[::1]:8080"], ["evil.example", "", "127.0.0.1.x"]),
        ("localhost", ["Dash.Example"], ["dash.example:443", "localhost"], ["evil.example"]),
        ("192.0.2.1", [], ["anything.example"], []),
        ("192.0.2.1", ["dash.example"], ["dash.example"], ["evil.example"]),
    ],
)  # fmt: skip
def test_names_that_a_browser_may_know_the_server_by(
    host: str, further: list[str], known: list[str], unknown: list[str]
) -> None:
    access = Access(None, known_hosts(host, further))
    assert [name for name in known if not access.knows_host(name)] == []
    assert [name for name in unknown if access.knows_host(name)] == []


async def test_request_for_another_host_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get("/", headers={"Host": "rebound.example"})
    assert response.status_code == 421
    assert "--allow-host" in response.text
    assert response.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "is_so"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("192.0.2.1", False), ("dash", False)]
)
def test_loopback(host: str, is_so: bool) -> None:
    assert is_loopback(host) is is_so


# ---- origins


@pytest.mark.parametrize(
    ("headers", "is_so"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "http://h:1", "host": "h:1"}, True),
        ({"sec-fetch-site": "same-origin", "host": "h:1"}, True),
        ({"origin": "https://h:1", "host": "h:1"}, True),
        ({"origin": "http://h:2", "host": "h:1"}, False),
        ({"origin": "null", "host": "h:1"}, False),
        ({"origin": "null", "host": ""}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://h:1", "host": "h:1"}, False),
        ({"sec-fetch-site": "cross-site", "host": "h:1"}, False),
        ({"sec-fetch-site": "none", "host": "h:1"}, False),
        ({"host": "h:1"}, False),
        ({}, False),
    ],
)
def test_same_origin(headers: dict[str, str], is_so: bool) -> None:
    assert is_same_origin(headers) is is_so


# ---- the token


async def test_dashboard_without_actions_has_no_login(client: httpx.AsyncClient) -> None:
    assert (await client.get("/login")).status_code == 404
    assert (await client.post("/login", data={"token": TOKEN})).status_code == 403
    assert "Unlock" not in (await client.get("/")).text


async def test_the_token_begins_a_session_that_no_script_and_no_other_site_gets(visit: Visit) -> None:
    async with visit(token=TOKEN) as client:
        assert "Unlock actions" in (await client.get("/")).text
        response = await client.post("/login", data={"token": TOKEN, "back": "/workers"})
        assert (response.status_code, response.headers["location"]) == (303, "/workers")
        cookie = response.headers["set-cookie"].casefold()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie
        assert TOKEN not in cookie
        html = (await client.get("/")).text
        assert "Lock</button>" in html
        assert TOKEN not in html


async def test_session_over_https_stays_there(visit: Visit) -> None:
    async with visit(token=TOKEN) as client:
        headers = {"Origin": "https://127.0.0.1"}
        response = await client.post("/login", data={"token": TOKEN}, headers=headers)
        assert "secure" in response.headers["set-cookie"].casefold()


@pytest.mark.parametrize("back", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_login_leads_to_no_other_site(visit: Visit, back: str) -> None:
    async with visit(token=TOKEN) as client:
        response = await client.post("/login", data={"token": TOKEN, "back": back})
        assert response.headers["location"] == "/"


@pytest.mark.parametrize("given", ["", "wrong", TOKEN + "x", "\ud800"])
async def test_wrong_token_begins_none(visit: Visit, given: str) -> None:
    async with visit(token=TOKEN) as client:
        content = httpx.QueryParams({"token": given.encode(errors="replace").decode()})
        response = await client.post("/login", data=dict(content))
        assert response.status_code == 403
        assert "set-cookie" not in response.headers


async def test_tokens_cannot_be_tried_for_ever(visit: Visit) -> None:
    access = Access(TOKEN)
    for _ in range(10):
        assert access.log_in("wrong") is None
    assert access.is_throttled
    async with visit(token=TOKEN) as client:
        client._transport.app.state.dashboard.access._failures.extend(access._failures)  # type: ignore[attr-defined]
        response = await client.post("/login", data={"token": TOKEN})
    assert response.status_code == 429


async def test_session_ends_with_log_out_and_with_its_time(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    async with visit(token=TOKEN, as_actor=True) as client:
        assert (await client.post("/logout", data={"csrf": "wrong"})).status_code == 403
        csrf = (await client.get("/")).text.partition('name="csrf" value="')[2].partition('"')[0]
        assert (await client.post("/logout", data={"csrf": csrf})).status_code == 303
        assert "Unlock actions" in (await client.get("/")).text
    monkeypatch.setattr(access_module, "_SESSION_LIFETIME", 0.0)
    async with visit(token=TOKEN, as_actor=True) as client:
        assert "Unlock actions" in (await client.get("/")).text


def test_sessions_are_bounded() -> None:
    access = Access(TOKEN)
    ids = [access.log_in(TOKEN) for _ in range(250)]
    assert len(set(ids)) == 250
    assert len(access._sessions) == 200


@pytest.mark.parametrize(
    ("headers", "status_code"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
async def test_form_from_elsewhere_is_refused(visit: Visit, headers: dict[str, str], status_code: int) -> None:
    async with visit(token=TOKEN) as client:
        about = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        response = await client.post("/login", content=f"token={TOKEN}", headers=about)
        assert response.status_code == status_code
        assert "set-cookie" not in response.headers


async def test_huge_form_is_refused(visit: Visit) -> None:
    async with visit(token=TOKEN) as client:
        assert (await client.post("/login", data={"token": "x" * 100_000})).status_code == 413


async def test_no_page_shows_the_password_of_redis_or_the_token(visit: Visit) -> None:
    async with visit(token=TOKEN, as_actor=True) as client:
        for path in ("/", "/workers", "/login", "/nowhere"):
            html = (await client.get(path)).text
            assert TOKEN not in html
            assert "redis://" not in html
