"""The options of a batch that `run`, `submit` and `retry` share: declared once, put into the signature of each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from straggler.options import (
    Backoff,
    Deadline,
    Grace,
    HeartbeatTimeout,
    MaxFailures,
    Name,
    QueueTimeout,
    Retries,
    RetryOn,
    Timeout,
)
from straggler.usage.common import given, split, tolerance

Choices = dict[str, object]
"""Those that were given, as `Producer.submit` and `Batch.retry` take them."""


def takes_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Put these options in the place of a command's parameter `choices`, in which it gets those that were given."""
    ours = inspect.signature(_choose, eval_str=True).parameters
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def call(**words: Any) -> None:
        chosen = {name: words.pop(name) for name in ours}
        command(choices=_choose(**chosen), **words)

    parameters = list(signature.parameters.values())
    at = list(signature.parameters).index("choices")
    parameters[at : at + 1] = ours.values()
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what typer reads
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _choose(
    *,
    timeout: Timeout = None,
    queue_timeout: QueueTimeout = None,
    deadline: Deadline = None,
    heartbeat_timeout: HeartbeatTimeout = None,
    retries: Retries = None,
    backoff: Backoff = None,
    retry_on: RetryOn = None,
    max_failures: MaxFailures = None,
    grace: Grace = None,
    name: Name = None,
) -> Choices:
    times = given(timeout=timeout, queue_timeout=queue_timeout, deadline=deadline, heartbeat_timeout=heartbeat_timeout)
    tries = given(retries=retries, backoff=backoff, retry_on=split(retry_on), max_failures=tolerance(max_failures))
    return times | tries | given(grace=grace, name=name)
