"""The trace that a job is part of, on its way to the job's own process: spans made there are children of the job's.

It goes as W3C's trace context, `traceparent` and `tracestate`. Where nobody has imported OpenTelemetry there is none.
"""

# ruff: noqa: PLC0415  # opentelemetry is an extra: it is imported where it is needed

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def are_wanted() -> bool:
    """Whether this process knows OpenTelemetry."""
    return "opentelemetry.trace" in sys.modules


def carried() -> dict[str, str]:
    """Return what leads to the current span; nothing if there is none."""
    if not are_wanted():
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


@contextmanager
def entered(carrier: dict[str, str]) -> Iterator[None]:
    """Let the span that this leads to be the current one; what makes no sense leads to none."""
    if not carrier or not are_wanted():
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract(carrier, context.Context()))
    try:
        yield
    finally:
        context.detach(token)
