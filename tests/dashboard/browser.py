"""A browser for tests: Debian's chromium, headless and offline, and a dashboard served for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, ViewportSize, async_playwright

from dashboard.access import Access, known_hosts
from dashboard.server import get_ready, listen, serve
from producer.producer import Producer

CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "no chromium on this machine: what a browser makes of the pages is not tested"
needs_chromium = pytest.mark.skipif(CHROMIUM is None and os.environ.get("REQUIRE_CHROMIUM") != "1", reason=NO_CHROMIUM)

# Offline and quiet: it loads nothing of its own accord.
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 900}


class Visitor:
    """One page of a browser.

    Attributes:
        complaints: What the browser has said in its console, and errors of scripts.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self._note_failure(request.url, request.failure or ""))
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        page.set_default_timeout(60_000)

    def _note_failure(self, url: str, failure: str) -> None:
        if not (url.endswith("/live") or "/live?" in url):  # a page that is left closes its stream
            self.complaints.append(f"{url}: {failure}")

    async def go(self, path: str) -> None:
        """Load a page, and wait until it is live, if it is one that is."""
        await self.page.goto(self.address + path)
        if await self.page.evaluate("document.body.dataset.live !== undefined"):
            await self.page.wait_for_selector("#pulse[data-state=on]")

    async def until_said(self, selector: str, words: str) -> None:
        """Wait until an element says something."""
        script = "([selector, words]) => document.querySelector(selector)?.innerText.includes(words)"
        await self.page.wait_for_function(script, arg=[selector, words])

    async def unlock(self, token: str) -> None:
        """Give the token."""
        await self.page.goto(f"{self.address}/login")
        await self.page.fill("#token", token)
        await self.page.click("main button")
        await self.page.wait_for_url(f"{self.address}/")


@asynccontextmanager
async def served(producer: Producer, token: str | None = None) -> AsyncIterator[str]:
    """Serve a dashboard on a free port of this machine; yields its address."""
    with listen("127.0.0.1", 0) as listener:
        stop = asyncio.Event()
        server = await get_ready(producer, Access(token, known_hosts("127.0.0.1", [])))
        serving = asyncio.create_task(serve(server, listener, stop))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def browser(**options: Any) -> AsyncIterator[BrowserContext]:
    """Start a browser with a fresh directory of its own; options as Playwright's contexts take them."""
    with tempfile.TemporaryDirectory(prefix="straggler-browser-") as folder:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                folder, executable_path=CHROMIUM, args=list(_FLAGS), headless=True, viewport=DESKTOP, **options
            )
            try:
                yield context
            finally:
                await context.close()
