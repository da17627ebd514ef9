"""A web site of 5,000 pages to crawl: each links to some that lie below it, back, anywhere, twice, and to itself.

It prints its address, serves on this machine alone, and ends when its standard input does. A number of pages, and how
long each takes, s, may be given: `crawl_site.py 300 0.02`.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

PAGES = 5000


def links(number: int, pages: int) -> list[int]:
    """Say which pages a page links to: a tree in which all are reached, and what a crawler must not fall for."""
    below = [3 * number + 1, 3 * number + 2, 3 * number + 3]
    elsewhere = [number // 2, number, 3 * number + 1, number * 7919 % pages]
    return [linked for linked in below + elsewhere if linked < pages]


async def answer(request: web.Request) -> web.Response:
    """Answer with a page."""
    number, pages = int(request.match_info["number"]), request.app[COUNT]
    await asyncio.sleep(request.app[DELAY])
    anchors = "".join(f'<a href="/{linked}">{linked}</a>\n' for linked in links(number, pages))
    text = f"<title>Page {number}</title>\n{anchors}<a href='https://example.org/'>elsewhere</a>"
    return web.Response(text=text, content_type="text/html")


async def main(pages: int, delay: float) -> None:
    """Serve until standard input ends."""
    app = web.Application()
    app[COUNT], app[DELAY] = pages, delay
    app.add_routes([web.get(r"/{number:\d+}", answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


COUNT = web.AppKey("COUNT", int)
DELAY = web.AppKey("DELAY", float)

if __name__ == "__main__":
    pages, delay, *_ = [*sys.argv[1:], *[str(PAGES), "0"][len(sys.argv) - 1 :]]
    asyncio.run(main(int(pages), float(delay)))
