"""Settings: `STRAGGLER_*` variables or a `.env`, read once at the start and handed on as plain values."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from protocol.errors import OptionError, explain, shorten, suggest

DEFAULT_MAX_ARGUMENTS_BYTES = 1 << 20
_PREFIX = "STRAGGLER_"
_QUEUE = re.compile(r"^[A-Za-z0-9_.-]{1,100}$")


class Settings(BaseSettings):
    """What an environment may say of straggler.

    Args:
        redis_url: The Redis to work with.
        queue: The queue to submit to and to work on.
        jobs: Modules whose jobs a worker runs, separated by commas.
        concurrency: Jobs that a worker process runs at a time.
        job_processes: Processes for plain functions, of one worker process.
        max_abandoned: Jobs left behind after they ignored their cancellation, before a worker is replaced.
        kill_floor: A worker whose loop stands still for less than this is never killed, s.
        shutdown_wait: How long a worker lets running jobs finish after SIGTERM, s.
        lease: How long a worker holds a chunk without a sign of life, s.
        dashboard_actions: Whether the dashboard lets who has its token act, as by --allow-actions.
        dashboard_token: What the dashboard's visitors give before they may act.
        max_arguments_bytes: Longest arguments of one job, bytes of JSON.
        max_result_bytes: Longest value of one job, bytes of JSON.
        log_format: How commands write their logs.
        log_level: From which level on; by default from warning, with --verbose from info.
        metrics_port: Where a worker serves its metrics for Prometheus; none are served by default, 0 takes a free port.
        metrics_host: The address of that.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        # What compose files hand on as `${NAME:-}` is there and empty.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    redis_url: str = "redis://localhost:6379"
    queue: Annotated[str, Field(pattern=_QUEUE.pattern)] = "default"
    jobs: str = ""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 100
    job_processes: Annotated[int, Field(ge=1, le=1000)] = os.cpu_count() or 1
    max_abandoned: Annotated[int, Field(ge=0)] = 16
    kill_floor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    shutdown_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    lease: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    dashboard_actions: bool = False
    dashboard_token: Annotated[SecretStr | None, Field(min_length=8)] = None
    max_arguments_bytes: Annotated[int, Field(ge=1)] = DEFAULT_MAX_ARGUMENTS_BYTES
    max_result_bytes: Annotated[int, Field(ge=1)] = 1 << 20
    log_format: Literal["plain", "json"] = "plain"
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    metrics_host: str = "127.0.0.1"

    @classmethod
    def read(cls) -> Settings:
        """Read the environment.

        Raises:
            OptionError: If a value cannot be, or a `STRAGGLER_*` variable is unknown.
        """
        known = {f"{_PREFIX}{name}".upper() for name in cls.model_fields}
        names = {*os.environ, *dotenv_values(".env")}
        unknown = sorted(name for name in names if name.upper().startswith(_PREFIX) and name.upper() not in known)
        if unknown:
            raise OptionError(f"unknown setting {', '.join(unknown)}; {suggest(unknown[0].upper(), known, _PREFIX)}")
        try:
            return cls()
        except ValidationError as error:
            variables = ", ".join(f"{_PREFIX}{finding['loc'][0]}".upper() for finding in error.errors())
            raise OptionError(f"setting {explain(error)} (as {variables})") from None


def checked_queue(name: str) -> str:
    """Make sure that a queue can have this name, which a worker's setting could say as well.

    Raises:
        OptionError: If it cannot be one.
    """
    if not _QUEUE.fullmatch(name):
        raise OptionError(f"queue {shorten(name)!r} cannot be: use 1 to 100 letters, digits, '_', '.' and '-'")
    return name
