"""`timeline`: a picture of a batch, or of a file of results, as one file."""

from __future__ import annotations

from pathlib import Path

from producer.collect import Cursor, read_present
from producer.export import ExportError
from producer.pictures.page import page
from producer.pictures.picture import draw
from producer.pictures.portrait import Portrait, read_results
from protocol.errors import OptionError
from straggler.commands.logs import set_up_logs
from straggler.commands.output import print_json
from straggler.commands.place import Place
from straggler.commands.process import SUCCEEDED, run_loop, say

_DRAWERS = {".svg": draw, ".html": page}


def timeline(place: Place, source: str, out: str, title: str | None, *, as_json: bool) -> int:
    """Draw what a batch has come to so far; a source that ends in `.jsonl` is a file of results."""
    set_up_logs(place.settings)
    drawer = _DRAWERS.get(Path(out).suffix.lower())
    if drawer is None:
        raise OptionError(f"--out {out}: a picture is written as .svg or .html")
    portrait = Portrait(title or source)
    if Path(source).suffix.lower() in (".jsonl", ".ndjson"):
        for result in read_results(Path(source)):
            portrait.add(result)
    elif code := run_loop(_gather(place, source, portrait, title)):
        return code
    try:
        Path(out).write_text(drawer(portrait), encoding="utf-8")
    except OSError as error:
        raise ExportError(f"the picture cannot be written to {out}: {error.strerror or error}") from None
    if as_json:
        print_json({"source": source, "title": portrait.title, "results": portrait.tally.total, "out": out})
    else:
        say(f"{portrait.tally.total:,} results are drawn in {out}")
    return SUCCEEDED


async def _gather(place: Place, batch_id: str, portrait: Portrait, title: str | None) -> int:
    async with place.producer() as producer:
        status = await (await producer.attach(batch_id)).status()
        portrait.title = title or status.name or batch_id
        async for result in read_present(producer.redis, batch_id, Cursor()):
            portrait.add(result)
    return SUCCEEDED
