"""What workers count, and how it is added up: nothing twice, nothing lost when a process goes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from protocol.batches import STATUSES
from protocol.clock import RedisClock
from protocol.connection import connect
from protocol.errors import OptionError
from protocol.jobs import JobSpec
from protocol.recording import encode_common
from tests.conftest import ROOT
from tests.jobs import square
from tests.metrics import parse, value
from workers.ending.rows import Rows
from workers.recorder import Group
from workers.vitals import exposition
from workers.vitals.exposition import Collector, Ledger, serving
from workers.vitals.metrics import Metrics, Signs
from workers.vitals.tally import BUCKETS, Tally, read_tally

DOCS = ROOT / "docs"


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    def observe(signs: Signs) -> None:
        signs.now = {"slots": 5, "slots_in_use": 2, "loop_lag_seconds": 0.25}
        signs.batches = ["a", "b"]
        signs.counted = {"leases_renewed": 3}

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


def test_each_time_is_in_the_bucket_of_its_bound(tmp_path: Path) -> None:
    chance = random.Random(7)
    times = [chance.lognormvariate(-1, 3) for _ in range(3000)] + list(BUCKETS)
    tally = Tally(tmp_path / "t")
    for start in range(0, len(times), 100):
        tally.add("f", {}, times[start : start + 100], [])
    tally.add("f", {}, [], [])
    [found] = read_tally(tmp_path / "t")
    expected = Counter(bisect_left(BUCKETS, time) for time in times)
    assert found.run[:-1] == [expected[bucket] for bucket in range(len(BUCKETS) + 1)]
    assert found.run[-1] == pytest.approx(sum(times))
    assert set(found.wait) == {0}


def test_tally_grows_with_its_functions_and_is_bounded(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "t", ["known"])
    for number in range(1500):
        tally.add(f"f{number}", {"success": number}, [0.5], [])
    tally.add("f3", {"failure": 1}, [], [])
    tally.add("é" * 200, {"lost": 1}, [], [])
    found = {row.function: row for row in read_tally(tmp_path / "t")}
    assert (sum(found["known"].results.values()), len(found)) == (0, 1001)
    assert found["f3"].results == {"success": 3, "timeout": 0, "failure": 1, "cancelled": 0, "lost": 0}
    assert found["(others)"].results["success"] == sum(range(999, 1500))
    assert found["(others)"].results["lost"] == 1
    assert sum(sum(row.run[:-1]) for row in found.values()) == 1500
    tally.close()
    assert len(list(read_tally(tmp_path / "t"))) == 1001


def test_name_that_is_too_long_is_cut(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "t", ["é" * 200])
    tally.add("x", {"success": 1}, [], [])
    [long, short] = read_tally(tmp_path / "t")
    assert long.function == "é" * 127
    assert (short.function, short.results["success"]) == ("x", 1)


def test_what_a_killed_process_has_counted_is_told_to_the_last_result(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from workers.vitals.tally import Tally\n"
        "tally = Tally(Path(sys.argv[1]))\n"
        "for _ in range(1000): tally.add('f', {'success': 3}, [0.1] * 3, [])\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "t")], cwd=ROOT, check=False, timeout=30)
    assert done.returncode == -9
    [row] = read_tally(tmp_path / "t")
    assert (row.results["success"], sum(row.run[:-1])) == (3000, 3000)


def test_results_are_counted_by_function_and_kind(metrics: Metrics, tmp_path: Path) -> None:
    ahead = metrics._clock.at(0.0)
    alike = [(index, "success", b"1", 101.0 - ahead, 101.02 - ahead, "k", None) for index in range(3)]
    mixed = [
        (7 + n, "success", b"1", 101.0 - ahead, 101.5 - ahead, None, called) for n, called in enumerate((None, "more"))
    ]
    rows = Rows("fetch", metrics._clock, 1000)
    told = [
        rows.failed(3, JobSpec(function="fetch", key='a "started_at":1,"finished_at":2'), ValueError("x")),
        rows.not_started(4, JobSpec(function="other", key="k"), 1.0, "queued", attempt=2),
        (5, "success", b'{"index":5,"status":"success","key":"k","started_at":104,"finished_at":106,"value":{}}'),
    ]
    metrics.count(
        [group("fetch", alike), group("fetch", told), group("lots", mixed), group("other", [(9, "lost", b"not ours")])]
    )
    found = {row.function: row for row in Ledger(tmp_path).read()[0].rows.values()}
    assert {name: {kind: n for kind, n in found[name].results.items() if n} for name in ("fetch", "other")} == {
        "fetch": {"success": 4, "failure": 1},
        "other": {"timeout": 1, "lost": 1},
    }
    assert [(found[name].results["success"], sum(found[name].run[:-1])) for name in ("lots", "more")] == [(1, 1)] * 2
    assert found["fetch"].run[-1] == pytest.approx(2.06, abs=1e-3)
    assert found["fetch"].wait[-1] == pytest.approx(7.0, abs=1e-3)
    assert sum(found["other"].run) == 0


def test_jobs_that_have_not_run_are_told_of(metrics: Metrics, tmp_path: Path) -> None:
    found = parse(expose(tmp_path))
    told = [s for s in found["straggler_jobs"].samples if s.labels["function"] == square.name]
    assert [(s.labels["result"], s.value) for s in told] == [(result, 0) for result in sorted(STATUSES)]
    assert value(found, "straggler_job_run_seconds_count", function=square.name) == 0


async def test_what_a_process_counted_stays_when_it_is_gone(metrics: Metrics, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert "f" not in ledger.read()[0].rows
    metrics.start()
    metrics.count([group("f", [(0, "success", b"1", 5.0, 5.5, None, None)])])
    assert ledger.read()[0].rows["f"].results["success"] == 1, "told at once"
    metrics.write()
    assert value(parse(expose(tmp_path)), "straggler_worker_slots") == 5
    await metrics.stop()
    for _ in range(3):
        total, living = ledger.read()
        assert total.rows["f"].results["success"] == 1
        assert total.beside["leases_renewed"] == 3
        assert living == []
    assert list(tmp_path.iterdir()) == [], "its files are gone"


def test_exposition_is_as_prometheus_wants_it(metrics: Metrics, tmp_path: Path) -> None:
    metrics.count([group('odd "name"\n', [(0, "success", b"1", 5.0, 5.5, None, None)])])
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

    metrics.count([group("f", [(0, "success", b"1", 5.0, 5.5, None, None)])])
    metrics.write()
    async with Producer("memory://metrics") as producer:
        told = parse((await of_redis(producer)).decode())
    await connect("memory://metrics").aclose()
    found = {**parse(expose(tmp_path)), **told}
    return {f"{name}_total" if family.type == "counter" else name for name, family in found.items()}


def test_page_lists_every_metric_and_no_other(names: set[str]) -> None:
    assert set(re.findall(r"^\| `(straggler_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)) == names
