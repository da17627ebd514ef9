"""What workers count, and how it is added up: nothing twice, nothing lost when a process goes."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from protocol.clock import RedisClock
from protocol.connection import connect
from protocol.errors import OptionError
from protocol.jobs import JobSpec
from protocol.recording import encode_common
from tests.conftest import ROOT
from tests.metrics import parse, value
from workers.ending.rows import Rows
from workers.recorder import Group
from workers.vitals import exposition
from workers.vitals.exposition import Collector, Ledger, serving
from workers.vitals.metrics import BUCKETS, Counts, Metrics, Times

DOCS = ROOT / "docs"


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    def observe(counts: Counts) -> None:
        counts.now = {"slots": 5, "slots_in_use": 2, "loop_lag_seconds": 0.25}
        counts.batches = ["a", "b"]
        counts.leases_renewed = 3

    made = Metrics(tmp_path, RedisClock(), observe)
    yield made
    made._life.close()


def group(function: str, rows: list[Any], enqueued_at: float = 100.0) -> Group:
    made = Group("b", encode_common(function, "w", enqueued_at))
    made.rows = rows
    return made


def expose(folder: Path, recorded: Counter[tuple[str, str]] | None = None) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(Ledger(folder), recorded or Counter(), Counter(died=2)))
    return generate_latest(registry).decode()


def test_each_time_is_in_the_bucket_of_its_bound() -> None:
    chance = random.Random(7)
    times = [chance.lognormvariate(-1, 3) for _ in range(3000)] + list(BUCKETS)
    found = Times()
    for start in range(0, len(times), 100):
        found.add(times[start : start + 100])
    found.add([])
    expected = Counter(bisect_left(BUCKETS, time) for time in times)
    assert found.counts == [expected[bucket] for bucket in range(len(BUCKETS) + 1)]
    assert found.total == pytest.approx(sum(times))


def test_results_are_counted_by_function_and_kind(metrics: Metrics) -> None:
    ahead = metrics._clock.at(0.0)
    alike = [(index, "success", b"1", 101.0 - ahead, 101.02 - ahead) for index in range(3)]
    rows = Rows("fetch", metrics._clock, 1000)
    told = [
        rows.failed(3, JobSpec(function="fetch", key='a "started_at":1,"finished_at":2'), ValueError("x")),
        rows.not_started(4, JobSpec(function="other", key="k"), 1.0, "queued", attempt=2),
        (5, "success", b'{"index":5,"status":"success","key":"k","started_at":104,"finished_at":106,"value":{}}'),
    ]
    metrics.count([group("fetch", alike), group("fetch", told), group("other", [(9, "lost", b"not ours")])])
    assert metrics.counts.jobs == {
        "fetch": {"success": 4, "failure": 1},
        "other": {"timeout": 1, "lost": 1},
    }
    assert metrics.counts.run["fetch"].total == pytest.approx(2.06, abs=1e-3)
    assert metrics.counts.wait["fetch"].total == pytest.approx(7.0, abs=1e-3)
    assert sum(metrics.counts.run["other"].counts) == 0


async def test_what_a_process_counted_stays_when_it_is_gone(metrics: Metrics, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.read()[0].jobs == {}, "it has written nothing yet"
    metrics.start()
    metrics.count([group("f", [(0, "success", b"1", 5.0, 5.5)])])
    metrics.write()
    assert value(parse(expose(tmp_path)), "straggler_worker_slots") == 5
    await metrics.stop()
    for _ in range(3):
        total, living = ledger.read()
        assert total.jobs == {"f": {"success": 1}}
        assert total.leases_renewed == 3
        assert living == []
    assert list(tmp_path.iterdir()) == [], "its files are gone"


def test_exposition_is_as_prometheus_wants_it(metrics: Metrics, tmp_path: Path) -> None:
    metrics.count([group('odd "name"\n', [(0, "success", b"1", 5.0, 5.5)])])
    metrics.write()
    found = parse(expose(tmp_path, Counter({("f", "timeout"): 2})))
    assert value(found, "straggler_jobs_total", result="timeout") == 2
    assert value(found, "straggler_jobs_total", function='odd "name"\n') == 1
    assert value(found, "straggler_worker_deaths_total", cause="died") == 2
    assert value(found, "straggler_worker_batches") == 2
    assert value(found, "straggler_worker_loop_lag_seconds") == 0.25
    assert value(found, "straggler_worker_processes") == 1


def test_metrics_without_their_package_are_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'straggler\[metrics\]'"):
        exposition.require()


def test_port_that_is_taken_is_said(tmp_path: Path) -> None:
    collector = Collector(Ledger(tmp_path), Counter(), Counter())
    with (
        serving("127.0.0.1", 0, collector) as port,
        pytest.raises(OptionError, match=rf"cannot be served at 127\.0\.0\.1:{port}: Address already in use"),
        serving("127.0.0.1", port, collector),
    ):
        pass


# ---- the docs


@pytest.fixture
async def names(metrics: Metrics, tmp_path: Path) -> set[str]:
    """Name all metrics, of workers and of Redis."""
    from producer.overview.metrics import exposition as of_redis  # noqa: PLC0415  # beside the other of that name
    from producer.producer import Producer  # noqa: PLC0415

    metrics.count([group("f", [(0, "success", b"1", 5.0, 5.5)])])
    metrics.write()
    async with Producer("memory://metrics") as producer:
        told = parse((await of_redis(producer)).decode())
    await connect("memory://metrics").aclose()
    found = {**parse(expose(tmp_path)), **told}
    return {f"{name}_total" if family.type == "counter" else name for name, family in found.items()}


def test_page_lists_every_metric_and_no_other(names: set[str]) -> None:
    assert set(re.findall(r"^\| `(straggler_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)) == names
