"""What who has given the token may do, and that nobody else may."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboard import actions
from producer.producer import Producer
from tests.conftest import PATIENCE, StartWorker, until, until_running
from tests.dashboard.conftest import TOKEN, Visit
from tests.dashboard.jobs import fail_with, fetch_number
from tests.dashboard.test_pages import plain, text_of
from tests.jobs import hang, wait_for_file

ACTIONS = (
    "/batches/b/cancel", "/batches/b/retry", "/batches/b/extend", "/batches/b/jobs/1/cancel", "/workers/drain",
    "/logout",
)  # fmt: skip


async def csrf_of(client: httpx.AsyncClient) -> str:
    return (await client.get("/workers")).text.partition('name="csrf" value="')[2].partition('"')[0]


async def act(client: httpx.AsyncClient, path: str, **form: Any) -> str:
    """Send a form, and load the page that it leads to."""
    response = await client.post(path, data={"csrf": await csrf_of(client), **form})
    assert response.status_code == 303, response.text
    return await text_of(client, response.headers["location"])


def notices(html: str) -> str:
    return " ".join(plain(notice).strip() for notice in re.findall(r'<p class="notice" role="status">.*?</p>', html))


# ---- refused


@pytest.mark.parametrize("path", ACTIONS)
async def test_dashboard_without_actions_refuses_all(client: httpx.AsyncClient, producer: Producer, path: str) -> None:
    batch = await producer.submit(fetch_number.map(range(3)), batch_id="b")
    assert (await client.post(path, data={"csrf": ""})).status_code == 403
    assert (await batch.status()).queued == 3


@pytest.mark.parametrize("path", ACTIONS)
async def test_without_the_token_an_action_is_refused(visit: Visit, producer: Producer, path: str) -> None:
    batch = await producer.submit(fetch_number.map(range(3)), batch_id="b")
    async with visit(token=TOKEN) as client:
        response = await client.post(path, data={"csrf": "", "what": "timeout"})
        assert response.status_code == 401
        assert "need the token" in response.text
        client.cookies.set("straggler_session", "made-up")
        assert (await client.post(path, data={"csrf": ""})).status_code == 401
    assert (await batch.status()).queued == 3


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        (None, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}),
        (None, {"Origin": "http://localhost"}),
        ("", {}),
        ("forged", {}),
    ],
)
async def test_forged_action_is_refused_whatever_cookie_comes_with_it(
    visit: Visit, producer: Producer, path: str, csrf: str | None, headers: dict[str, str]
) -> None:
    batch = await producer.submit(fetch_number.map(range(3)), batch_id="b")
    async with visit(token=TOKEN, as_actor=True) as client:
        form = {"csrf": await csrf_of(client) if csrf is None else csrf, "what": "timeout"}
        assert (await client.post(path, data=form, headers=headers)).status_code == 403
        assert (await client.get(path)).status_code in (404, 405)
    assert (await batch.status()).queued == 3


async def test_csrf_token_of_another_session_is_refused(visit: Visit, producer: Producer) -> None:
    await producer.submit(fetch_number.map(range(3)), batch_id="b")
    async with visit(token=TOKEN, as_actor=True) as one:
        stolen = await csrf_of(one)
        one.cookies.clear()
        await one.post("/login", data={"token": TOKEN})
        assert (await one.post("/batches/b/cancel", data={"csrf": stolen})).status_code == 403


async def test_pages_offer_actions_to_who_may_act_only(visit: Visit, producer: Producer) -> None:
    await producer.submit(fetch_number.map(range(3)), batch_id="b")
    async with visit(token=TOKEN) as client:
        html = await text_of(client, "/batches/b")
        assert "Cancel batch" not in html
        assert 'method="post"' not in html
        await client.post("/login", data={"token": TOKEN})
        assert "Cancel batch" in await text_of(client, "/batches/b")


# ---- done


async def test_batch_is_cancelled_with_a_reason(visit: Visit, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(3)))
    async with visit(token=TOKEN, as_actor=True) as client:
        html = await act(client, f"/batches/{batch.id}/cancel", reason="wrong list")
        assert notices(html) == "Cancelled: 3 jobs."
        assert notices(await text_of(client, "/")) == ""
        assert {result.reason for result in await batch.results() if result.status == "cancelled"} == {"wrong list"}
        assert "All jobs had their result" in await act(client, f"/batches/{batch.id}/cancel")


async def test_one_job_is_cancelled(visit: Visit, producer: Producer, worker: StartWorker) -> None:
    async with worker(), visit(token=TOKEN, as_actor=True) as client:
        batch = await producer.submit([hang.spec(), hang.spec()])
        await until_running(batch, 2)
        html = await act(client, f"/batches/{batch.id}/jobs/1/cancel")
        assert notices(html) == "The job was cancelled."
        async with asyncio.timeout(PATIENCE):
            while (await batch.status()).cancelled != 1:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.02)
        assert "had its result" in await act(client, f"/batches/{batch.id}/jobs/1/cancel")
        await batch.cancel()


async def test_jobs_of_a_status_run_again_with_another_timeout_and_twice_is_once(
    visit: Visit, producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker(), visit(token=TOKEN, as_actor=True) as client:
        batch = await producer.submit([*fetch_number.map(range(5)), wait_for_file.spec(door)], timeout=0.2)
        await batch.wait()
        door.touch()
        pages = [await act(client, f"/batches/{batch.id}/retry", what="timeout", timeout="9") for _ in range(2)]
        again = [name for name in [found.batch_id for found in await producer.batches()] if name != batch.id]
        assert len(again) == 1
        assert all(f'id">{again[0]}' in html for html in pages)
        assert notices(pages[0]) == "Sent again, as this batch: 1 job that timed out."
        redriven = await producer.attach(again[0])
        assert redriven.options.timeout == 9
        assert [result.status for result in await redriven.results()] == ["success"]
        assert again[0] in await text_of(client, f"/batches/{batch.id}")


async def test_jobs_of_one_fingerprint_run_again(visit: Visit, producer: Producer, worker: StartWorker) -> None:
    async with worker(), visit(token=TOKEN, as_actor=True) as client:
        jobs = [*(fail_with.spec(f"no user {number}") for number in range(3)), fail_with.spec("else")]
        batch = await producer.submit(jobs)
        await batch.wait()
        html = await text_of(client, f"/batches/{batch.id}")
        [(group, _), _] = re.findall(r'name="what" value="(\w{12})">\s*<button class="quiet">Run these (\d)', html)
        html = await act(client, f"/batches/{batch.id}/retry", what=group)
        assert "3 jobs that failed with ValueError" in notices(html)
        assert "3 jobs" in html


async def test_one_job_runs_again(visit: Visit, producer: Producer, worker: StartWorker) -> None:
    async with worker(), visit(token=TOKEN, as_actor=True) as client:
        batch = await producer.submit([fail_with.spec("a"), fail_with.spec("b")])
        await batch.wait()
        assert "Run again" in await text_of(client, f"/batches/{batch.id}/jobs/1")
        assert notices(await act(client, f"/batches/{batch.id}/retry", what="1")).endswith("job 1.")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"what": "failure", "timeout": "soon"}, "'soon' is no number of seconds"),
        ({"what": "failure", "timeout": "-1"}, "timeout"),
        ({"what": "99999999999"}, "cannot be"),
    ],
)
async def test_redrive_that_cannot_be_says_why(
    visit: Visit, producer: Producer, form: dict[str, str], said: str
) -> None:
    batch = await producer.submit(fetch_number.map(range(3)))
    async with visit(token=TOKEN, as_actor=True) as client:
        assert said in notices(await act(client, f"/batches/{batch.id}/retry", **form)).replace("&#39;", "'")


async def test_redrive_of_unknown_jobs_is_refused(visit: Visit, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(3)))
    async with visit(token=TOKEN, as_actor=True) as client:
        form = {"csrf": await csrf_of(client), "what": "success"}
        assert (await client.post(f"/batches/{batch.id}/retry", data=form)).status_code == 400
        assert (await client.post("/batches/nobody/retry", data=form)).status_code == 404


async def test_redrive_of_very_many_jobs_goes_on_by_itself(
    visit: Visit, producer: Producer, worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_PATIENCE", 0.0)
    async with worker(), visit(token=TOKEN, as_actor=True) as client:
        batch = await producer.submit([fail_with.spec("a")])
        await batch.wait()
        assert "On their way as batch" in notices(await act(client, f"/batches/{batch.id}/retry", what="failure"))
        async with asyncio.timeout(PATIENCE):
            while len(await producer.batches()) < 2:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0.02)


async def test_deadline_is_extended(visit: Visit, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(3)), deadline=60)
    async with visit(token=TOKEN, as_actor=True) as client:
        html = await act(client, f"/batches/{batch.id}/extend", deadline="7300")
        assert notices(html) == "The deadline is in 2 h."
        status = await batch.status()
        assert status.deadline is not None
        assert status.deadline - producer.clock.now() == pytest.approx(7300, abs=30)
        for given, said in (("soon", "no number of seconds"), ("5", "deadline"), ("-1", "deadline"), ("", "no number")):
            assert said in notices(await act(client, f"/batches/{batch.id}/extend", deadline=given))
        await batch.cancel()
        assert "deadline is in" not in notices(await act(client, f"/batches/{batch.id}/extend", deadline="9000"))


async def test_worker_is_drained(visit: Visit, producer: Producer, worker: StartWorker) -> None:
    async with worker(lease=1.0) as one, visit(token=TOKEN, as_actor=True) as client:
        await one.crew.leases.beat()
        assert "Drain" in await text_of(client, "/workers")
        html = await act(client, "/workers/drain", worker=one.crew.worker_id)
        assert "takes no more jobs" in notices(html)
        assert "draining" in html
        await until(lambda: one.drained)
        assert "is not there any more" in notices(await act(client, "/workers/drain", worker="nobody"))
