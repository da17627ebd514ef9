"""The pages in a browser, while real batches run: what moves, what can be done, what is shown as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from producer.producer import Producer
from tests.conftest import StartWorker, until
from tests.dashboard.browser import PHONE, Visitor, browser, needs_chromium, served
from tests.dashboard.conftest import TOKEN
from tests.dashboard.jobs import ATTACK, attack, fail_with, fetch_number, wait_with_a_note
from tests.jobs import wait_for_file

pytestmark = needs_chromium


@pytest.fixture
async def visitor(producer: Producer) -> AsyncIterator[Visitor]:
    """Visit a dashboard that allows actions to who has the token; a page that complains fails its test."""
    async with served(producer, TOKEN) as address, browser() as context:
        visitor = Visitor(context.pages[0], address)
        yield visitor
        assert visitor.complaints == []


async def test_counts_move_without_a_reload_while_a_batch_runs(
    visitor: Visitor, producer: Producer, worker: StartWorker, door: Path
) -> None:
    jobs = [*(fetch_number.spec(number, 0.01) for number in range(200)), wait_with_a_note.spec(door, "page 4 of 10")]
    batch = await producer.submit(jobs, name="crawl")
    await visitor.go(f"/batches/{batch.id}")
    await visitor.page.evaluate("window.isTheSamePage = true")
    await visitor.until_said("#summary", "201 queued")
    async with worker(concurrency=8):
        await visitor.until_said("#summary", "200 succeeded")
        await visitor.until_said("#stragglers", "page 4 of 10")
        await visitor.until_said("#results", "succeeded 200")
        await visitor.until_said("#times", "p95")
        door.touch()
        await visitor.until_said("#summary", "100 %")
        await visitor.until_said("#stragglers", "every job has its result")
        await visitor.page.wait_for_selector("#stream path.success")
    assert await visitor.page.evaluate("window.isTheSamePage")


async def test_list_of_batches_moves_without_a_reload(visitor: Visitor, producer: Producer) -> None:
    await visitor.go("/")
    await visitor.until_said("#list", "No batches yet")
    await producer.submit(fetch_number.map(range(7)), name="late comer")
    await visitor.until_said("#list", "late comer")


async def test_results_are_filtered_and_paged(visitor: Visitor, producer: Producer, worker: StartWorker) -> None:
    async with worker():
        jobs = [*fetch_number.map(range(60)), *(fail_with.spec(f"no user {number}") for number in range(30))]
        batch = await producer.submit(jobs)
        await batch.wait()
    page = visitor.page
    await visitor.go(f"/batches/{batch.id}")
    await visitor.until_said("#results", "failed 30")
    assert await page.locator(".results tbody tr").count() == 25
    await page.click("#results .filters a.failure")
    await visitor.until_said("#results", "page 1 of 2")
    assert await page.locator(".results .chip.failure").count() == 25
    await page.click("#results a[rel=next]")
    await visitor.until_said("#results", "page 2 of 2")
    assert await page.locator(".results .chip.failure").count() == 5
    await page.click("#failures summary")
    await page.click("#failures details a >> nth=0")
    await visitor.until_said("#results .filters [aria-current]", "no user #")
    await page.click(".results tbody tr >> nth=0 >> a")
    await visitor.until_said("main", "Traceback")


async def test_jobs_are_found_by_a_part_of_their_key_and_tell_their_attempts(
    visitor: Visitor, producer: Producer, worker: StartWorker
) -> None:
    async with worker():
        jobs = [fail_with.spec("no page", key=f"user/{number} <b>") for number in range(30)]
        batch = await producer.submit(jobs, retries=1, backoff=0.01)
        await batch.wait()
        await visitor.go(f"/batches/{batch.id}")
        page = visitor.page
        await page.fill(".search input", "USER/2")
        await page.press(".search input", "Enter")
        await visitor.until_said("#results .filters [aria-current]", "USER/2")
        assert await page.locator(".results tbody tr").count() == 11
        await visitor.until_said("#results", "Searched: the keys of 30 of 30 results.")
        await page.click(".results tbody tr >> nth=0 >> a")
        await visitor.until_said("section[aria-label=Attempts]", "ValueError: no page")
        assert await page.locator(".attempts .chip.failure").count() == 2
    assert visitor.complaints == []


async def test_open_details_stay_open_while_the_page_moves(
    visitor: Visitor, producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch = await producer.open_batch()
        await batch.add([fail_with.spec("no user 1")])
        await visitor.go(f"/batches/{batch.id}")
        await visitor.until_said("#failures", "1\N{MULTIPLICATION SIGN}")
        await visitor.page.click("#failures summary")
        await batch.add([fail_with.spec("no user 2")])
        await visitor.page.locator("#failures h2").click()  # the focus leaves the summary
        await visitor.page.evaluate("document.activeElement.blur()")
        await visitor.until_said("#failures", "2\N{MULTIPLICATION SIGN}")
        assert await visitor.page.locator("#failures details[open]").count() == 1
        await batch.close()


async def test_timeouts_run_again_from_the_page(
    visitor: Visitor, producer: Producer, worker: StartWorker, door: Path
) -> None:
    async with worker():
        batch = await producer.submit(
            [*fetch_number.map(range(9)), *(wait_for_file.spec(door) for _ in range(3))], timeout=0.2
        )
        await batch.wait()
        door.touch()
        await visitor.unlock(TOKEN)
        await visitor.go(f"/batches/{batch.id}")
        await visitor.page.select_option("#actions select", "timeout")
        await visitor.page.fill("#actions input[name=timeout]", "30")
        await visitor.page.click("#actions button >> text=Run again")
        await visitor.until_said("main", "Sent again, as this batch: 3 jobs that timed out.")
        assert batch.id not in visitor.page.url
        await visitor.until_said("#summary", "3 succeeded")


async def test_batch_is_cancelled_from_the_page(visitor: Visitor, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(9)))
    await visitor.unlock(TOKEN)
    await visitor.go(f"/batches/{batch.id}")
    await visitor.page.fill("#actions input[name=reason]", "wrong list")
    await visitor.page.click("#actions button.danger")
    await visitor.until_said("main", "Cancelled: 9 jobs.")
    await visitor.until_said("#summary", "9 cancelled")
    await visitor.until_said("#causes", "wrong list")


async def test_worker_is_drained_from_the_page(visitor: Visitor, worker: StartWorker) -> None:
    async with worker(lease=1.0) as one:
        await visitor.unlock(TOKEN)
        await visitor.go("/workers")
        await visitor.page.click("#list button >> text=Drain")
        await visitor.until_said("main", "takes no more jobs")
        await until(lambda: one.drained)


async def test_without_the_token_a_page_offers_no_action_and_a_forged_one_is_refused(
    visitor: Visitor, producer: Producer
) -> None:
    batch = await producer.submit(fetch_number.map(range(9)))
    await visitor.go(f"/batches/{batch.id}")
    assert await visitor.page.locator("form[method=post]").count() == 0
    path = f"/batches/{batch.id}/cancel"
    forged = "{method: 'POST', body: new URLSearchParams({csrf: 'x'})}"
    send = f"async (path) => {{ const said = await fetch(path, {forged}); await said.text(); return said.status; }}"
    assert await visitor.page.evaluate(send, path) == 401
    assert (await batch.status()).queued == 9
    await visitor.page.goto(f"{visitor.address}/login")
    await visitor.page.fill("#token", "wrong-token")
    await visitor.page.click("main button")
    await visitor.until_said("main", "That is not the token.")
    assert [text for text in visitor.complaints if "status of 40" not in text] == []  # its word on these two
    visitor.complaints.clear()


async def test_what_jobs_say_is_shown_as_text(visitor: Visitor, producer: Producer, worker: StartWorker) -> None:
    async with worker():
        jobs = [attack.spec(), attack.spec(key=ATTACK), fail_with.spec(ATTACK)]
        batch = await producer.submit(jobs, name=ATTACK, metadata={ATTACK: ATTACK})
        await batch.wait()
    said = {
        "/": "#list", f"/batches/{batch.id}": "#results", f"/batches/{batch.id}/jobs/0": "main",
        f"/batches/{batch.id}/jobs/1": "h1", f"/batches/{batch.id}/jobs/2": "main",
    }  # fmt: skip
    for path, selector in said.items():
        await visitor.go(path)
        await visitor.until_said(selector, "window.attacked = true")
        await asyncio.sleep(0)
        assert await visitor.page.evaluate("window.attacked") is None
        assert await visitor.page.locator("main img, main script").count() == 0


async def test_page_says_when_its_server_is_gone_and_when_the_batch_is(visitor: Visitor, producer: Producer) -> None:
    batch = await producer.submit(fetch_number.map(range(9)), batch_id="b")
    await visitor.go(f"/batches/{batch.id}")
    await batch.delete()
    await visitor.until_said("#away", "no longer in Redis")
    await visitor.until_said("#pulse", "not live")


async def test_everything_is_reached_by_keyboard(visitor: Visitor, producer: Producer, worker: StartWorker) -> None:
    async with worker():
        batch = await producer.submit([fail_with.spec("no")], name="the only one")
        await batch.wait()
    page = visitor.page
    await visitor.go("/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.innerText") == "Skip to the content"
    await page.keyboard.press("Enter")
    for _ in range(10):
        await page.keyboard.press("Tab")
        if "the only one" in await page.evaluate("document.activeElement.innerText"):
            break
    await page.keyboard.press("Enter")
    await visitor.until_said("h1", "the only one")
    await page.focus("#failures summary")
    await page.keyboard.press("Enter")
    assert await page.locator("#failures details[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_fit_a_phone_and_their_text_can_be_read(
    producer: Producer, worker: StartWorker, scheme: str
) -> None:
    async with served(producer, TOKEN) as address, browser(color_scheme=scheme) as context, worker() as one:
        await one.crew.leases.beat()
        jobs = [
            fail_with.spec("x" * 300),
            *(fetch_number.spec(number, key=f"https://example.com/{'y' * 90}/{number}") for number in range(40)),
        ]
        batch = await producer.submit(jobs, name="a name of many words " * 6)
        await batch.wait()
        visitor = Visitor(context.pages[0], address)
        await visitor.unlock(TOKEN)
        await visitor.page.set_viewport_size(PHONE)
        for path in ("/", f"/batches/{batch.id}", f"/batches/{batch.id}/jobs/0", "/workers", "/login", "/nowhere"):
            await visitor.page.goto(address + path)
            beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await visitor.page.evaluate(beyond) <= 0, path
            assert await visitor.page.evaluate(_LOWEST_CONTRAST) >= 4.5, path
        assert [text for text in visitor.complaints if "404" not in text] == []


# The lowest contrast, as WCAG reckons it, between a text and what it stands on.
_LOWEST_CONTRAST = """
() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let lowest = 21;
  for (const element of document.querySelectorAll("body *:not(svg *):not(script):not(option)")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !element.getClientRects().length) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
    lowest = Math.min(lowest, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return lowest;
}
"""
