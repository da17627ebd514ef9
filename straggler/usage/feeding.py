"""The commands that feed workers elsewhere and collect from them: `submit` and `collect`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import (
    AsJson,
    InputFormat,
    Key,
    OnComplete,
    Out,
    Queue,
    Redis,
    Rows,
    SkipBadRows,
    Wait,
    Watch,
)  # fmt: skip
from straggler.usage.choices import Choices, takes_choices
from straggler.usage.common import check_output, finish, place


@takes_choices
def submit(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION", help="The job's name as the workers know it, or file.py:function, module:function."
        ),
    ],
    rows: Rows,
    *,
    choices: Choices,
    on_complete: OnComplete = None,
    wait: Wait = False,
    out: Out = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs", metavar="MODULES", help="Where the function is, so that rows are checked before sending."
        ),
    ] = None,
    batch_id: Annotated[
        str | None,
        typer.Option(
            "--batch-id", metavar="ID", help="Submitting the same id again adds nothing twice. Default: random."
        ),
    ] = None,
    input_format: InputFormat = None,
    key: Key = None,
    skip_bad_rows: SkipBadRows = False,
    queue: Queue = None,
    redis: Redis = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Submit a batch for workers to run, and print its id.

    With --wait, Ctrl-C leaves the batch running and says how to collect it later; a second one cancels it.
    """
    check_output(out, as_json=as_json, waits=wait)

    def command() -> int:
        from straggler.commands.batches import submit
        from straggler.commands.feed import Input
        from straggler.commands.output import Output

        return submit(
            place(redis, queue),
            function,
            Input(rows, input_format, key, skip_bad_rows),
            jobs=jobs,
            batch_id=batch_id,
            on_complete=on_complete,
            wait=wait,
            out=Output(out, as_json, watch),
            **choices,
        )

    finish(command)


def collect(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write results, as they come, to a .jsonl, .csv or .parquet file, or to stdout with -. One in which "
            "an earlier collect of this batch was stopped, or killed, is gone on with; any other is overwritten.",
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(
            "--cursor", metavar="C", help="Collect from here on, where an earlier collect was stopped; --out appends."
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs",
            metavar="MODULES",
            help="Where the function is: the fields of a value that is a flat model get columns of their own.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", min=0, help="Longest time to collect; the batch goes on."),
    ] = None,
    lineage: Annotated[
        bool,
        typer.Option(
            "--lineage", help="Merge in all its redrives: the latest result of each job, in order of submission."
        ),
    ] = False,
    redis: Redis = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Collect a batch's results as they come, to the last.

    Ctrl-C leaves the batch running and says how to go on; a second one cancels it.
    """
    check_output(out, as_json=as_json)
    if lineage and (cursor is not None or timeout is not None):
        raise typer.BadParameter("a lineage is collected as a whole: no --cursor, no --timeout", param_hint="--lineage")

    def command() -> int:
        from straggler.commands.batches import collect
        from straggler.commands.lineage import collect_lineage
        from straggler.commands.output import Output

        output = Output(out, as_json, watch)
        if lineage:
            return collect_lineage(place(redis), batch, out=output, jobs=jobs)
        return collect(place(redis), batch, cursor=cursor, out=output, jobs=jobs, timeout=timeout)

    finish(command)
