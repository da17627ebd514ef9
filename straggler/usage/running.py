"""The commands that run jobs: `run` and `worker`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import (
    AsJson,
    Concurrency,
    InputFormat,
    Jobs,
    Key,
    LogFormat,
    Out,
    Queue,
    Redis,
    Rows,
    SkipBadRows,
    Verbose,
    Watch,
)  # fmt: skip
from straggler.usage.choices import Choices, takes_choices
from straggler.usage.common import check_output, finish, place


@takes_choices
def run(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="file.py:function, package.module:function, or a ready-made job such as http.fetch.",
        ),
    ],
    rows: Rows,
    *,
    choices: Choices,
    concurrency: Concurrency = None,
    out: Out = None,
    input_format: InputFormat = None,
    key: Key = None,
    skip_bad_rows: SkipBadRows = False,
    jobs: Jobs = None,
    redis: Annotated[
        str | None, typer.Option("--redis", metavar="URL", help="Keep the batch in this Redis; default: in memory.")
    ] = None,
    watch: Watch = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_format: LogFormat = None,
) -> None:
    """Run a batch in this process: no Redis, no set-up.

    Ctrl-C stops it; what was collected so far is in the --out file.
    """
    check_output(out, as_json=as_json)

    def command() -> int:
        from straggler.commands.feed import Input
        from straggler.commands.output import Output
        from straggler.commands.run import run

        return run(
            place(redis, log_format=log_format, is_shared=False),
            function,
            Input(rows, input_format, key, skip_bad_rows),
            jobs=jobs,
            concurrency=concurrency,
            out=Output(out, as_json, watch),
            verbose=verbose,
            **choices,
        )

    finish(command)


def worker(
    context: typer.Context,
    *,
    jobs: Jobs = None,
    concurrency: Concurrency = None,
    queue: Queue = None,
    burst: Annotated[bool, typer.Option("--burst", help="Leave once the queue is empty.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only find out whether this host's worker is well: exit code 0, or 1.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: what is found as JSON on stdout.")] = False,
    redis: Redis = None,
    verbose: Verbose = False,
    log_format: LogFormat = None,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, max=1000, metavar="N", help="Worker processes, each with its own slots."),
    ] = 1,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65_535,
            metavar="PORT",
            help="Serve Prometheus metrics of all processes here, at STRAGGLER_METRICS_HOST (127.0.0.1).",
        ),
    ] = None,
) -> None:
    """Run jobs that producers submit, until told to stop.

    A supervisor starts the worker processes, kills one that a job holds past its time, and replaces whatever ends.

    SIGTERM or Ctrl-C lets running jobs finish for STRAGGLER_SHUTDOWN_WAIT seconds (10), then hands the rest back to the
    queue; a second one hands back at once.
    """
    if as_json and not check:
        raise typer.BadParameter("only --check prints facts", param_hint="--json")

    def command() -> int:
        where = place(redis, queue, log_format)
        if check:
            from straggler.commands.health import check_health

            return check_health(where, as_json=as_json)
        from straggler.commands.worker import Work, supervise

        return supervise(where, processes, Work(jobs, concurrency, burst, verbose, metrics_port), context.obj)

    finish(command)
