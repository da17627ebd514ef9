"""The commands that tell how things are: `status`, `top`, `workers`, `timeline`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from protocol.errors import UsageError
from straggler.options import AsJson, Queue, Redis
from straggler.usage.common import finish, place


def status(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="Its id; default: the newest ones.")] = None,
    *,
    job: Annotated[
        str | None, typer.Option("--job", metavar="KEY|INDEX", help="Tell of one job: its attempts, result, arguments.")
    ] = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many batches to list.")] = 20,
    redis: Redis = None,
) -> None:
    """Say how far a batch is, or one job; or list batches."""

    def command() -> int:
        if job is not None:
            from straggler.commands.job import job as tell

            if batch is None:
                raise UsageError("--job tells of one job of a batch: name that, too")
            return tell(place(redis), batch, job, as_json=as_json)
        from straggler.commands.status import status

        return status(place(redis), batch, as_json=as_json, limit=limit)

    finish(command)


def top(
    *,
    interval: Annotated[float, typer.Option("--interval", min=0.1, metavar="S", help="Time between two looks.")] = 1.0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, metavar="N", help="How many batches to show.")] = 10,
    once: Annotated[
        bool, typer.Option("--once", help="Print once, and leave; where there is no terminal that is so anyway.")
    ] = False,
    as_json: AsJson = False,
    queue: Queue = None,
    redis: Redis = None,
) -> None:
    """Show queues, workers, batches, the slowest jobs, live.

    Ctrl-C leaves.
    """

    def command() -> int:
        from straggler.commands.top import top

        return top(place(redis, queue), interval=interval, limit=limit, once=once, as_json=as_json)

    finish(command)


def workers(*, as_json: AsJson = False, queue: Queue = None, redis: Redis = None) -> None:
    """List a queue's workers, and how they are.

    How full they are, what they have left behind, how far their loops lag, their memory.
    """

    def command() -> int:
        from straggler.commands.top import workers

        return workers(place(redis, queue), as_json=as_json)

    finish(command)


def timeline(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="Its id, or a .jsonl file of results, as --out has written it.")
    ],
    *,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Where to draw it: a .svg or .html file.")],
    title: Annotated[str | None, typer.Option("--title", help="What to call it; default its name, or id.")] = None,
    as_json: AsJson = False,
    redis: Redis = None,
) -> None:
    """Draw a batch as one file, for a report.

    A row for each worker slot over time, coloured by result, and how long jobs waited and ran. The file needs no
    other. Of a batch that goes on it shows what there is so far.
    """

    def command() -> int:
        from straggler.commands.timeline import timeline

        return timeline(place(redis), batch, out, title, as_json=as_json)

    finish(command)
