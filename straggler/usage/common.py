"""What the commands' declarations share: where a command works, the options that were given, how it ends."""

# ruff: noqa: PLC0415  # a command is imported when it runs: `straggler --help` must not wait for Redis clients

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from straggler.commands.place import Place


class Commands(TyperGroup):
    """The group of all commands; what is wrong with a parameter is said with its value."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            found: list[Any] = getattr(
                error.__cause__, "errors", list
            )()  # typer says what pydantic says, but for the value
            error.message = error.message.removeprefix("Value error, ")
            if found and repr(found[0]["input"]) not in error.message:
                error.message += f", got {found[0]['input']!r}"
            raise


def say_version(wanted: bool) -> None:  # noqa: FBT001  # typer hands it on so
    """Print straggler's version and leave, if that is asked for."""
    if wanted:
        from importlib.metadata import version

        typer.echo(version("straggler"))
        raise typer.Exit


def place(
    redis: str | None, queue: str | None = None, log_format: str | None = None, *, is_shared: bool = True
) -> Place:
    """Say where a command works, and how it writes its logs.

    Raises:
        OptionError: If a setting or an option cannot be, or a Redis that other processes are to share is in memory.
    """
    from protocol.errors import OptionError
    from protocol.settings import Settings
    from straggler.commands.place import Place

    settings = Settings.read()
    url = redis or settings.redis_url
    if is_shared and url.startswith("memory:"):
        raise OptionError(f"{url!r} ends with this process, so no other one finds a batch there: use 'straggler run'")
    changes = {"log_format": log_format} if log_format else {}
    return Place(settings.model_copy(update=changes), redis, queue)


def given(**options: object) -> dict[str, object]:
    """Leave out the options that were not given."""
    return {name: value for name, value in options.items() if value is not None}


def split(words: list[str] | None) -> tuple[str, ...] | None:
    """Take an option's values apart: it may be repeated, and each may hold several, separated by commas."""
    return tuple(part.strip() for word in words for part in word.split(",")) if words else None


def check_output(out: str | None, *, as_json: bool, waits: bool = True) -> None:
    """Make sure that there are results for where they are to go, and that stdout is asked for once.

    Raises:
        typer.BadParameter: If a command that does not wait for them is to write results; or both these and the summary
            are to go to stdout.
    """
    if out is not None and not waits:
        raise typer.BadParameter("results come only with --wait (or later: straggler collect)", param_hint="--out")
    if as_json and out == "-":
        raise typer.BadParameter("the results go to stdout: give them a file, or leave --json out", param_hint="--out")


def tolerance(text: str | None) -> object:
    """Read how many failures are borne: a number of jobs, or a share of them; what is neither is refused later."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type]  # None is no number either
    return text


def finish(command: Callable[[], int]) -> None:
    """Run a command, and leave with its exit code."""
    from straggler.commands.process import finish

    finish(command)
