"""Jobs of a program that traces: each span is a line of JSON in the file that TRACES names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from straggler import job


class ToFile(SpanExporter):
    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: object) -> SpanExportResult:
        assert isinstance(spans, tuple | list)
        with self._path.open("a") as file:
            file.writelines(json.dumps(described(span)) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def described(span: ReadableSpan) -> dict[str, object]:
    assert span.context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": span.parent and f"{span.parent.span_id:016x}",
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links],
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes or {}),
        "seconds": ((span.end_time or 0) - (span.start_time or 0)) / 1e9,
    }


def set_up(path: Path) -> TracerProvider:
    """Let all spans of this process go to a file, at its end: as in service they wait for each other."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(ToFile(path), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)
    return provider


if "TRACES" in os.environ:
    set_up(Path(os.environ["TRACES"]))


@job(name="traced.work")
async def work(number: int) -> int:
    with trace.get_tracer("mine").start_as_current_span(f"inside {number}"):
        if number == 3:
            raise ValueError("three is [not] there")
    return number


@job(name="traced.plain")
def plain(number: int) -> int:
    with trace.get_tracer("mine").start_as_current_span(f"in a process {number}"):
        return number


@job(name="traced.threaded", isolation="thread")
def threaded(number: int) -> int:
    with trace.get_tracer("mine").start_as_current_span(f"in a thread {number}"):
        return number
