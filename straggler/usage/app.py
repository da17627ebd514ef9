"""The command line: the commands and their order.

What each is called with is in the modules beside this one, what it does in `straggler.commands`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from straggler.usage.common import Commands, say_version
from straggler.usage.feeding import collect, submit
from straggler.usage.looking import status, timeline, top, workers
from straggler.usage.redriving import retry
from straggler.usage.running import run, worker
from straggler.usage.serving import dashboard
from straggler.usage.steering import cancel, delete, extend

app = typer.Typer(
    name="straggler",
    cls=Commands,
    epilog="Settings are read from STRAGGLER_* variables, such as STRAGGLER_REDIS_URL, or a .env file. Exit codes: "
    "0 all jobs succeeded, 3 the batch ended and some did not, 1 an error, 2 wrong usage, 130 Ctrl-C.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def straggler(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run batches of jobs, each inside a timeout of its own, so that a job that hangs costs its own result only."""


for command in (run, worker, submit, collect, cancel, extend, retry, delete, status, top, workers, timeline, dashboard):
    app.command()(command)

command_line = typer.main.get_command(app)
"""All of it, built once."""
