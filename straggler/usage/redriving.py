"""The command that runs again what did not succeed: `retry`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import (
    AsJson,
    Out,
    Redis,
    Wait,
    Watch,
)
from straggler.usage.choices import Choices, takes_choices
from straggler.usage.common import check_output, finish, place, split


@takes_choices
def retry(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="STATUSES",
            help="Which jobs run again: timeout, failure, cancelled, lost; repeated, or separated by commas. Default: "
            "timeout,lost, or all four with --index.",
        ),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option("--index", metavar="N", help="Only jobs with these indexes; repeated, or separated by commas."),
    ] = None,
    choices: Choices,
    wait: Wait = False,
    out: Out = None,
    batch_id: Annotated[
        str | None,
        typer.Option("--batch-id", metavar="ID", help="The new batch's; the same again adds nothing. Default: random."),
    ] = None,
    redis: Redis = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Run what timed out or was lost again, as a new batch.

    Its id is printed. Arguments and options are as they were, but for those that are given here.
    """
    check_output(out, as_json=as_json, waits=wait)

    def command() -> int:
        from straggler.commands.output import Output
        from straggler.commands.redrive import Choice, retry

        choice = Choice(batch, split(only), split(index))
        return retry(place(redis), choice, batch_id=batch_id, wait=wait, out=Output(out, as_json, watch), **choices)

    finish(command)
