"""The command line: what each command is called with. What it does is in `straggler.commands`.

Only what a command needs is imported, and only when it runs: `straggler --help` must not wait for Redis clients.
"""

# ruff: noqa: PLC0415  # see above: a command is imported when it runs

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from straggler.options import (
    Backoff,
    Concurrency,
    Deadline,
    Grace,
    InputFormat,
    Jobs,
    Key,
    Name,
    Out,
    Queue,
    QueueTimeout,
    Redis,
    Retries,
    RetryOn,
    Rows,
    SkipBadRows,
    Timeout,
    Verbose,
)  # fmt: skip

if TYPE_CHECKING:
    from straggler.commands.place import Place

app = typer.Typer(
    name="straggler",
    help="Run batches of jobs, each inside a timeout of its own, so that a job that hangs costs its own result only.",
    epilog="Settings are read from STRAGGLER_* variables, such as STRAGGLER_REDIS_URL, or a .env file. Exit codes: "
    "0 all jobs succeeded, 3 the batch ended and some did not, 1 an error, 2 wrong usage, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
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
    timeout: Timeout = None,
    queue_timeout: QueueTimeout = None,
    deadline: Deadline = None,
    retries: Retries = None,
    backoff: Backoff = None,
    retry_on: RetryOn = None,
    grace: Grace = None,
    concurrency: Concurrency = None,
    out: Out = None,
    input_format: InputFormat = None,
    key: Key = None,
    skip_bad_rows: SkipBadRows = False,
    name: Name = None,
    jobs: Jobs = None,
    redis: Annotated[
        str | None, typer.Option("--redis", metavar="URL", help="Keep the batch in this Redis; default: in memory.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run a batch in this process, from start to end: no Redis, no set-up.

    Ctrl-C stops it; what was collected so far is in the --out file.
    """
    options = _given(timeout=timeout, queue_timeout=queue_timeout, deadline=deadline, grace=grace, name=name)
    options |= _given(retries=retries, backoff=backoff, retry_on=_split(retry_on))

    def command() -> int:
        from straggler.commands.feed import Input
        from straggler.commands.run import run

        return run(
            _place(redis),
            function,
            Input(rows, input_format, key, skip_bad_rows),
            jobs=jobs,
            concurrency=concurrency,
            out=out,
            verbose=verbose,
            **options,
        )

    _finish(command)


@app.command()
def worker(
    *,
    jobs: Jobs = None,
    concurrency: Concurrency = None,
    queue: Queue = None,
    burst: Annotated[bool, typer.Option("--burst", help="Leave once the queue is empty.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only find out whether this host's worker is well: exit code 0, or 1.")
    ] = False,
    redis: Redis = None,
    verbose: Verbose = False,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, max=1000, metavar="N", help="Worker processes, each with its own slots."),
    ] = 1,
    pulse: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run jobs that producers submit, until told to stop.

    A supervisor starts the worker processes, kills one that a job holds past its time, and replaces whatever ends.

    SIGTERM or Ctrl-C lets running jobs finish for STRAGGLER_SHUTDOWN_WAIT seconds (10), then hands the rest back to the
    queue; a second one hands back at once.
    """

    def command() -> int:
        from straggler.commands.worker import check as check_health
        from straggler.commands.worker import supervise, work

        place = _place(redis, queue)
        if check:
            return check_health(place)
        if pulse is not None:
            return work(place, pulse, jobs=jobs, concurrency=concurrency, burst=burst, verbose=verbose)
        return supervise(place, processes, jobs=jobs, concurrency=concurrency, burst=burst, verbose=verbose)

    _finish(command)


@app.command()
def submit(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION", help="The job's name as the workers know it, or file.py:function, module:function."
        ),
    ],
    rows: Rows,
    *,
    timeout: Timeout = None,
    queue_timeout: QueueTimeout = None,
    deadline: Deadline = None,
    retries: Retries = None,
    backoff: Backoff = None,
    retry_on: RetryOn = None,
    grace: Grace = None,
    wait: Annotated[bool, typer.Option("--wait", help="Go on like collect.")] = False,
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
    name: Name = None,
    queue: Queue = None,
    redis: Redis = None,
) -> None:
    """Submit a batch for workers to run, and print its id.

    With --wait, Ctrl-C leaves the batch running and says how to collect it later.
    """
    if out is not None and not wait:
        raise typer.BadParameter("results come only with --wait (or later: straggler collect)", param_hint="--out")
    options = _given(timeout=timeout, queue_timeout=queue_timeout, deadline=deadline, grace=grace, name=name)
    options |= _given(retries=retries, backoff=backoff, retry_on=_split(retry_on))

    def command() -> int:
        from straggler.commands.batches import submit
        from straggler.commands.feed import Input

        return submit(
            _place(redis, queue),
            function,
            Input(rows, input_format, key, skip_bad_rows),
            jobs=jobs,
            batch_id=batch_id,
            wait=wait,
            out=out,
            **options,
        )

    _finish(command)


@app.command()
def collect(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its id, as submit printed it.")],
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write results, as they come, to a .jsonl or .csv file, or to stdout with -. With --cursor they are "
            "appended, else a file that is there is overwritten.",
        ),
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="C", help="Go on where an earlier collect was stopped.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", min=0, help="Longest time to collect; the batch goes on."),
    ] = None,
    redis: Redis = None,
) -> None:
    """Collect a batch's results as they come, until its last job has one.

    Ctrl-C leaves the batch running and says how to go on.
    """

    def command() -> int:
        from straggler.commands.batches import collect

        return collect(_place(redis), batch, cursor=cursor, out=out, timeout=timeout)

    _finish(command)


@app.command()
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

        return status(_place(redis), batch, as_json=as_json, limit=limit)

    _finish(command)


def main() -> None:
    """Run the command line."""
    app(prog_name="straggler")


def _place(redis: str | None, queue: str | None = None) -> Place:
    from protocol.settings import Settings
    from straggler.commands.place import Place

    return Place(Settings.read(), redis, queue)


def _given(**options: object) -> dict[str, object]:
    """Leave out the options that were not given."""
    return {name: value for name, value in options.items() if value is not None}


def _split(words: list[str] | None) -> tuple[str, ...] | None:
    """Take an option's values apart: it may be repeated, and each may hold several, separated by commas."""
    return tuple(part.strip() for word in words for part in word.split(",")) if words else None


def _finish(command: Callable[[], int]) -> None:
    from straggler.commands.process import finish

    finish(command)


if __name__ == "__main__":
    main()
