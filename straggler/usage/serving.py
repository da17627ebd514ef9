"""The commands that serve people's browsers: `dashboard`."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from typing import Annotated

import typer

from straggler.options import LogFormat, Queue, Redis, Verbose
from straggler.usage.common import finish, place


def dashboard(
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes any that is free.")] = 8080,
    allow_actions: Annotated[
        bool,
        typer.Option("--allow-actions", help="Let who has the token cancel, run again, extend and drain."),
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="That token, at least 8 characters; better in STRAGGLER_DASHBOARD_TOKEN, where no list of processes "
            "shows it. Default: a new one, printed.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A further name that browsers know this server by; may be repeated."
        ),
    ] = None,
    queue: Queue = None,
    redis: Redis = None,
    verbose: Verbose = False,
    log_format: LogFormat = None,
) -> None:
    """Show batches, jobs and workers in a browser.

    Everybody who reaches the address may read; nobody may change anything, unless actions are allowed.
    """

    def command() -> int:
        from straggler.commands.dashboard import dashboard

        return dashboard(
            place(redis, queue, log_format),
            host,
            port,
            allow_actions=allow_actions,
            token=token,
            hosts=allow_host or [],
            verbose=verbose,
        )

    finish(command)
