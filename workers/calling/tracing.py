"""A span of OpenTelemetry for each run of a job, linked to the span that its batch was submitted in.

Only where the worker's process has set a provider of spans; else no job comes here. The span is current while the job's
code runs, so what that traces is its child. A span is the root of a trace of its own: a million jobs in one trace are
of no use to anybody.
"""

# ruff: noqa: PLC0415  # opentelemetry is an extra: it is imported where it is needed

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from protocol.batches import BatchOptions
from workers.calling.runs import JobRun
from workers.ending.outcomes import Cancelled, HandedBack, Outcome, Raised, TimedOut

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer


def find_tracing() -> Tracing | None:
    """Return what traces jobs; None if nobody in this process wants traces."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Tracing(provider.get_tracer("straggler"))


class Tracing:
    """Trace the jobs of one worker.

    Args:
        tracer: Makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def runs_of(self, options: BatchOptions) -> Callable[..., JobRun]:
        """Return what makes the runs of a batch's jobs."""
        return partial(TracedRun, self._tracer, _links(options.trace))


class TracedRun(JobRun):
    """A run in a span of its own."""

    def __init__(self, tracer: Tracer, links: list[Link], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracer = tracer
        self._links = links
        self._span: Any = None

    def begin(self, context: Context) -> bool:
        """Begin the span, and take the first step in it."""
        from opentelemetry import context as contexts
        from opentelemetry import trace

        self._span = self._tracer.start_span(
            f"run {self.job.function}",
            contexts.Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes=self._attributes(),
            links=self._links,
        )
        context.run(contexts.attach, trace.set_span_in_context(self._span, contexts.Context()))
        return super().begin(context)

    def ended(self) -> None:
        """End the span, and let the chunk conclude the run."""
        if self._span is not None:  # else it was stopped before its first step
            self._end_span(self._span)
        super().ended()

    def _attributes(self) -> dict[str, Any]:
        about = {
            "messaging.system": "straggler",
            "code.function.name": self.job.function,
            "straggler.batch": self.chunk.batch_id,
            "straggler.index": self.index,
            "straggler.attempt": self.attempt,
        }
        return about if self.job.key is None else {**about, "straggler.key": self.job.key}

    def _end_span(self, span: Any) -> None:
        from opentelemetry.trace import StatusCode

        result, error = _describe(self.outcome)
        span.set_attribute("straggler.result", result)
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end()


def _describe(outcome: Outcome | None) -> tuple[str, str | None]:
    """Say what a run ended in, and what was wrong."""
    match outcome:
        case Raised(error):
            return "failure", str(error) or type(error).__name__
        case TimedOut(limit, phase, stopped):
            return "timeout", f"timed out after {limit:g} s ({phase}, {stopped})"
        case Cancelled(reason):
            return "cancelled", f"cancelled: {reason}"
        case HandedBack():
            return "handed back", None
        case _:
            return "success", None


def _links(traceparent: str | None) -> list[Link]:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""})
    context = trace.get_current_span(found).get_span_context()
    return [trace.Link(context)] if context.is_valid else []
