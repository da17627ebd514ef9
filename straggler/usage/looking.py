"""The commands that tell how things are: `status`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import Redis
from straggler.usage.common import finish, place


def status(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="Its id; default: the newest ones.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many batches to list.")] = 20,
    redis: Redis = None,
) -> None:
    """Say how far a batch is, or list the newest batches."""

    def command() -> int:
        from straggler.commands.status import status

        return status(place(redis), batch, as_json=as_json, limit=limit)

    finish(command)
