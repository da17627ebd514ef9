"""The options that several commands share, and what their help says."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Redis = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="redis://, rediss:// or unix://; default STRAGGLER_REDIS_URL."),
]
Queue = Annotated[str | None, typer.Option("--queue", help="The queue; default STRAGGLER_QUEUE, or 'default'.")]
Jobs = Annotated[
    str | None,
    typer.Option("--jobs", metavar="MODULES", help="Modules or files with @job functions, separated by commas."),
]
Rows = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A file of rows, one job each: .txt (a line, an argument), .jsonl (an object: keywords; an array: "
        "positionals; else one argument), .csv (the header names the parameters, an empty cell is not given), "
        "or - for stdin.",
        show_default=False,
    ),
]
InputFormat = Annotated[
    Literal["txt", "jsonl", "csv"] | None,
    typer.Option("--format", help="How INPUT is written, where its name does not tell; stdin is txt."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="FIELD",
        help="The field of a csv or jsonl row that names the job in the results; if it is no parameter of the function "
        "it is the name only. Default: the row's first value.",
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Report rows that cannot be read or do not validate, and go on.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", help="Longest run of one job; default its @job(timeout=...), or 300."),
]
QueueTimeout = Annotated[
    float | None, typer.Option("--queue-timeout", metavar="S", help="Longest wait of a job before it starts.")
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="S", help="Time for the whole batch; what has no result by then is timed out."),
]
HeartbeatTimeout = Annotated[
    float | None,
    typer.Option(
        "--heartbeat-timeout",
        metavar="S",
        help="Longest time between two heartbeats of a job; default its @job(heartbeat_timeout=...), or none.",
    ),
]
Retries = Annotated[
    int | None,
    typer.Option("--retries", metavar="N", help="Further attempts of a job; default its @job(retries=...), or 0."),
]
Backoff = Annotated[
    float | None,
    typer.Option(
        "--backoff",
        metavar="S",
        help="Wait before the first further attempt, doubled for each; default 1, with jitter.",
    ),
]
RetryOn = Annotated[
    list[str] | None,
    typer.Option(
        "--retry-on", metavar="STATUSES", help="What is tried again: failure (default), timeout, or failure,timeout."
    ),
]
MaxFailures = Annotated[
    str | None,
    typer.Option(
        "--max-failures",
        metavar="N",
        help="Stop the batch past this many jobs that do not succeed (10), or this share of them (0.1).",
    ),
]
Grace = Annotated[
    float | None,
    typer.Option("--grace", metavar="S", help="Time for the cleanup of a job that is stopped; default 5."),
]
Name = Annotated[str | None, typer.Option("--name", help="What people call the batch.")]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write results, as they come, to a .jsonl, .csv or .parquet file, or to stdout with -. A file that is "
        "there is overwritten once the batch begins.",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, max=100_000, metavar="N", help="Jobs that run at a time; default 100."),
]
LogFormat = Annotated[
    Literal["plain", "json"] | None,
    typer.Option("--log-format", help="How logs are written: lines, or JSON; default STRAGGLER_LOG_FORMAT, or plain."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every event, not only what went wrong.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON on stdout, for programs.")]
OnComplete = Annotated[
    str | None,
    typer.Option(
        "--on-complete",
        metavar="FUNCTION",
        help="A job that starts once, when the batch is complete; its parameter status gets the batch's status.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Go on like collect.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show the batch on a screen: run times, slowest jobs, failures; on a terminal.")
]
