"""A web server with 1,000 real pages, of which 20 behave badly: what `examples/demo.py` fetches.

The pages are source files of Python's standard library, the first 1,000 by path; where a Python ships fewer, those of
the packages installed beside it fill up. Of them 10 are never answered, 5 are answered with 500, and 5 stop half-way;
the list of all, `/urls.jsonl`, gives the latter a `read_timeout`, so that the client gives up on them before their
job's time is up.

It prints its address, serves on this machine alone, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import sysconfig
from itertools import chain
from pathlib import Path
from typing import NoReturn

from aiohttp import web

PAGES = 1000
# Bytes of a page that stops half-way: fewer than `http.fetch` reads at most, so that it waits for more.
SENT = 1000


def behaviour(number: int) -> str:
    """Say how the server treats a page: the bad ones stand at even distances."""
    if number % 100 == 0:
        return "never-answers"
    if number % 200 == 50:
        return "answers-500"
    if number % 200 == 150:
        return "stops-half-way"
    return "page"


def find_pages() -> dict[str, Path]:
    """Map the paths of the URLs to the files that stand behind them."""
    pages: dict[str, Path] = {}
    for name, path in chain(sources(sysconfig.get_path("stdlib")), sources(sysconfig.get_path("purelib"))):
        pages.setdefault(name, path)
        if len(pages) == PAGES:
            return {f"/{behaviour(number)}/{name}": path for number, (name, path) in enumerate(pages.items())}
    sys.exit(f"this Python has only {len(pages)} source files, the demo takes {PAGES}")


def sources(directory: str) -> list[tuple[str, Path]]:
    """List a library's source files by path; what is installed beside the standard library is no part of it."""
    home = Path(directory)
    names = sorted(path.relative_to(home).as_posix() for path in home.rglob("*.py"))
    return [(name, home / name) for name in names if not name.startswith(("site-packages/", "dist-packages/"))]


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer a request as its URL's first part says."""
    if request.path not in request.app[FILES]:
        raise web.HTTPNotFound
    content = request.app[FILES][request.path].read_bytes()
    match request.path.split("/")[1]:
        case "never-answers":
            return await never()
        case "answers-500":
            raise web.HTTPInternalServerError
        case "stops-half-way":
            response = web.StreamResponse(headers={"Content-Length": str(len(content) + 1)})
            await response.prepare(request)
            await response.write(content[:SENT])
            return await never()
        case _:
            return web.Response(body=content, content_type="text/x-python")


async def list_urls(request: web.Request) -> web.Response:
    """Answer with the demo's input: one JSON object for each page, its keys the parameters of `http.fetch`."""
    rows = []
    for path in request.app[FILES]:
        row: dict[str, str | float] = {"url": str(request.url.origin().with_path(path))}
        if "/stops-half-way/" in path:
            row["read_timeout"] = 0.5
        rows.append(json.dumps(row))
    return web.Response(text="\n".join(rows) + "\n")


async def never() -> NoReturn:
    """Wait for ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def main() -> None:
    """Serve until standard input ends."""
    app = web.Application()
    app[FILES] = find_pages()
    app.add_routes([web.get("/urls.jsonl", list_urls), web.get("/{page:.+}", answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


FILES = web.AppKey("FILES", dict[str, Path])

if __name__ == "__main__":
    asyncio.run(main())
