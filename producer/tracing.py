"""The span of OpenTelemetry in which a batch is submitted; its jobs' spans are linked to it, wherever they run.

A program that has not imported OpenTelemetry pays nothing, and needs none.
"""

# ruff: noqa: PLC0415  # opentelemetry is an extra: it is imported where it is needed

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from protocol.batches import BatchOptions


@contextmanager
def submitting(batch_id: str, queue: str, options: BatchOptions) -> Iterator[BatchOptions]:
    """Trace what is done here as the submission of a batch; yields its options, in which the trace travels."""
    if "opentelemetry.trace" not in sys.modules or options.trace is not None:
        yield options
        return
    from opentelemetry import trace

    about = {"messaging.system": "straggler", "straggler.batch": batch_id, "straggler.queue": queue}
    named = f"submit {options.name}" if options.name else "submit"
    with trace.get_tracer("straggler").start_as_current_span(named, kind=trace.SpanKind.PRODUCER, attributes=about):
        yield stamped(options)


def stamped(options: BatchOptions) -> BatchOptions:
    """Note the current span in a batch's options, if there is one."""
    if "opentelemetry.trace" not in sys.modules:
        return options
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return options.model_copy(update={"trace": carrier.get("traceparent")}) if carrier else options
