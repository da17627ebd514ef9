"""The commands that change a batch, or end it: `cancel`, `extend`, `delete`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import AsJson, Redis
from straggler.usage.common import finish, place, split


def cancel(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    index: Annotated[
        list[str] | None,
        typer.Option("--index", metavar="N", help="Only jobs with these indexes; repeated, or separated by commas."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the results.")] = "",
    as_json: AsJson = False,
    redis: Redis = None,
) -> None:
    """Cancel a batch, or some of its jobs.

    What waits never starts, what runs is stopped, with cleanup; results that are there stay. A batch that is cancelled
    as a whole takes no more jobs, and ends.
    """

    def command() -> int:
        from straggler.commands.cancel import cancel

        return cancel(place(redis), batch, split(index), reason, as_json=as_json)

    finish(command)


def extend(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    deadline: Annotated[
        float,
        typer.Option("--deadline", metavar="S", help="When its time is up, s from now; later than it is now."),
    ],
    as_json: AsJson = False,
    redis: Redis = None,
) -> None:
    """Give a batch more time, and its jobs that run."""

    def command() -> int:
        from straggler.commands.extend import extend

        return extend(place(redis), batch, deadline, as_json=as_json)

    finish(command)


def delete(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    as_json: AsJson = False,
    redis: Redis = None,
) -> None:
    """Delete a batch, with all its results.

    What waits never starts, what runs is stopped. A batch is deleted by itself when it is past its lifetime: a day
    after its last result, where nothing else was said.
    """

    def command() -> int:
        from straggler.commands.delete import delete

        return delete(place(redis), batch, as_json=as_json)

    finish(command)
