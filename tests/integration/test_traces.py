"""Traces from the producer's program to the jobs', across Redis and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from producer.producer import Producer
from protocol.settings import Settings
from straggler import JobSpec, embedded
from tests.conftest import ROOT, StartProcess, StartWorker
from tests.examples import blocks
from tests.jobs import fail, hang, square
from tests.traced_jobs import described
from workers.calling.spans import carried, entered
from workers.calling.tracing import find_tracing

FEED = """
import asyncio, sys
from pathlib import Path
from opentelemetry import trace
from straggler import JobSpec, Producer
from tests.traced_jobs import set_up

async def main():
    set_up(Path(sys.argv[1]))
    async with Producer() as producer:
        with trace.get_tracer("mine").start_as_current_span("nightly"):
            jobs = [JobSpec(function="traced.work", args=(number,), key=f"k{number}") for number in range(5)]
            jobs += [JobSpec(function=f"traced.{name}", args=(9,)) for name in ("plain", "threaded")]
            batch = await producer.submit(jobs, name="users")
        await batch.results()

asyncio.run(main())
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Gather this process's spans, for this test only."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def found(exporter: InMemorySpanExporter) -> list[dict[str, Any]]:
    return [described(span) for span in exporter.get_finished_spans()]


async def test_each_attempt_has_a_span_that_tells_its_end(spans: InMemorySpanExporter) -> None:
    async with embedded(Settings()) as producer:
        jobs = [*square.map([1, 2]), fail.spec("no [such] user"), hang.spec(timeout=0.05, key="slow")]
        await (await producer.submit(jobs, retries=1, backoff=0.01)).results()
    [submit, *runs] = sorted(found(spans), key=lambda span: span["name"] != "submit")
    assert (submit["kind"], submit["parent"]) == ("PRODUCER", None)
    told = sorted((run["name"], run["attributes"]["straggler.attempt"], run["status"]) for run in runs)
    assert told == [
        ("run fail", 1, "ERROR"), ("run fail", 2, "ERROR"), ("run hang", 1, "ERROR"),
        ("run square", 1, "UNSET"), ("run square", 1, "UNSET"),
    ]  # fmt: skip
    [late] = [run for run in runs if run["name"] == "run hang"]
    assert late["seconds"] >= 0.05
    assert late["attributes"]["straggler.result"] == "timeout"
    assert late["attributes"]["straggler.key"] == "slow"
    assert all(run["links"] == [f"{submit['trace']}-{submit['span']}"] for run in runs)
    assert len({run["trace"] for run in runs} | {submit["trace"]}) == 6, "each is a trace of its own"


async def test_redriven_jobs_are_linked_to_who_redrove_them(spans: InMemorySpanExporter) -> None:
    async with embedded(Settings()) as producer:
        batch = await producer.submit([fail.spec("x")])
        await batch.results()
        spans.clear()
        with trace.get_tracer("mine").start_as_current_span("again"):
            again = await batch.retry(("failure",))
        await again.results()
    [outer] = [span for span in found(spans) if span["name"] == "again"]
    [run] = [span for span in found(spans) if span["name"] == "run fail"]
    assert run["links"] == [f"{outer['trace']}-{outer['span']}"]


async def test_spans_of_a_thread_are_children_of_its_job(spans: InMemorySpanExporter) -> None:
    async with embedded(Settings()) as producer:
        await (await producer.submit([JobSpec(function="traced.threaded", args=(7,))])).results()
    [inside] = [span for span in found(spans) if span["name"] == "in a thread 7"]
    [run] = [span for span in found(spans) if span["name"] == "run traced.threaded"]
    assert (inside["trace"], inside["parent"]) == (run["trace"], run["span"])


def test_span_is_found_again_where_its_context_was_carried_to(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("mine")
    state = trace.TraceState([("vendor", "x")])
    far = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(far)):
        carrier = carried()
    assert carrier["tracestate"] == "vendor=x"
    with entered(carrier), tracer.start_as_current_span("inside"):
        pass
    assert not trace.get_current_span().get_span_context().is_valid
    for nothing in ({}, {"traceparent": "not a trace"}):
        with entered(nothing), tracer.start_as_current_span("alone"):
            pass
    inside, *alone = found(spans)
    assert (inside["trace"], inside["parent"]) == (f"{1:032x}", f"{2:016x}")
    assert [span["parent"] for span in alone] == [None, None]


async def test_batch_of_a_program_that_traces_nothing_has_no_trace(producer: Producer, worker: StartWorker) -> None:
    assert find_tracing() is None
    async with worker():
        batch = await producer.submit(square.map([1]))
        assert batch.options.trace is None
        await batch.results()


async def test_trace_that_makes_no_sense_harms_no_job(spans: InMemorySpanExporter) -> None:
    async with embedded(Settings()) as producer:
        batch = await producer.submit(square.map([2]), trace="not a trace")
        assert await batch.gather() == [4]
    [run] = found(spans)
    assert run["links"] == []


@pytest.mark.redis
def test_spans_of_other_processes_are_linked_across_redis(
    tmp_path: Path, redis_url: str, worker_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACES", str(tmp_path / "jobs"))
    worker = ["straggler", "worker", "--processes", "2"]
    started = worker_process(command=worker, jobs="tests.traced_jobs", concurrency=3)
    monkeypatch.delenv("TRACES")
    environment = {**os.environ, "STRAGGLER_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", FEED, str(tmp_path / "feed")], cwd=ROOT, env=environment, check=True, timeout=60
    )
    started.terminate()
    assert started.wait() == 0

    submit, nightly = [json.loads(line) for line in (tmp_path / "feed").read_text().splitlines()]
    assert (submit["name"], submit["parent"], nightly["name"]) == ("submit users", nightly["span"], "nightly")
    spans = [json.loads(line) for line in (tmp_path / "jobs").read_text().splitlines()]
    runs = {span["span"]: span for span in spans if span["name"].startswith("run ")}
    assert sorted(run["attributes"]["straggler.index"] for run in runs.values()) == list(range(7))
    assert {link for run in runs.values() for link in run["links"]} == {f"{submit['trace']}-{submit['span']}"}
    inside = [span for span in spans if span["name"].startswith("inside")]
    assert len(inside) == 5
    for span in inside:
        run = runs[span["parent"]]
        assert run["trace"] == span["trace"]
        assert run["attributes"]["straggler.key"] == f"k{span['name'].split()[1]}", "a job's own spans are its children"
    assert [run["status"] for run in runs.values()].count("ERROR") == 1
    for place, name in (("a process", "plain"), ("a thread", "threaded")):
        [span] = [span for span in spans if span["name"] == f"in {place} 9"]
        assert runs[span["parent"]]["name"] == f"run traced.{name}"
        assert runs[span["parent"]]["trace"] == span["trace"]


def test_straggler_alone_imports_no_opentelemetry() -> None:
    code = "import straggler, sys, workers.worker; straggler.Producer; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_example_of_the_page_traces_jobs(tmp_path: Path) -> None:
    [example] = blocks(["metrics"])
    code = "\nfrom straggler import job\n\n@job\nasync def twice(number: int) -> int:\n    return 2 * number\n"
    (tmp_path / "jobs.py").write_text(example + code)
    (tmp_path / "rows.txt").write_text("1\n2\n")
    words = [sys.executable, "-m", "straggler.cli", "run", "jobs.py:twice", "rows.txt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count('"name": "run twice"') == 2
    assert done.stdout.count('"name": "submit"') == 1
