"""docs/alerts.yml, grafana.json and prometheus.yml against what is really served, and by Prometheus' own programs.

Where there is no promtool and no prometheus (Debian's package `prometheus` has both) their tests are left out, and
pytest says so; that all names and labels are served is found out without them.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.producer import Producer
from straggler import JobSpec
from tests.conftest import PATIENCE, ROOT, StartProcess
from tests.jobs import fail, hang, square
from tests.metrics import parse

pytestmark = pytest.mark.redis

DOCS = ROOT / "docs"
GRAFANA: dict[str, Any] = json.loads((DOCS / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = GRAFANA["panels"]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
# An expression, and what is written of its series: legends, annotations.
ASKED: list[tuple[str, str]] = [
    *((target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]),
    *((rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES),
]
PROMTOOL, PROMETHEUS = shutil.which("promtool") or "", shutil.which("prometheus") or ""
NEEDS_PROMTOOL = pytest.mark.skipif(not PROMTOOL, reason="no promtool on this machine")
NEEDS_PROMETHEUS = pytest.mark.skipif(not PROMETHEUS, reason="no prometheus on this machine")
# What Prometheus adds to each series by itself.
ADDED = {"instance", "job", "le"}


# ---- by Prometheus' own linter


@NEEDS_PROMTOOL
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", "docs/alerts.yml"],
        ["check", "config", "docs/prometheus.yml"],
        ["test", "rules", "tests/integration/alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_to_complain_of(words: list[str]) -> None:
    done = subprocess.run([PROMTOOL, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    cases = yaml.safe_load((ROOT / "tests/integration/alerts_test.yml").read_text())["tests"]
    found = {(case["alertname"], bool(case["exp_alerts"])) for test in cases for case in test["alert_rule_test"]}
    assert found == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


# ---- by what is served


def test_panels_of_grafana_have_places_and_numbers_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) == 15
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


async def test_every_name_and_label_that_is_asked_for_is_served(
    producer: Producer, worker_process: StartProcess, redis_url: str
) -> None:
    async with targets(producer, worker_process, redis_url) as ports:
        served = [await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/metrics") for port in ports]
    labels: dict[str, set[str]] = {}
    for text in served:
        for family in parse(text).values():
            for sample in family.samples:
                labels.setdefault(sample.name, set(ADDED)).update(sample.labels)
    for expression, told in ASKED:
        names = set(re.findall(r"straggler_\w+", expression))
        assert names <= set(labels), expression
        shown = set(re.findall(r"\{\{ *(?:\$labels\.)?(\w+) *\}\}", told))
        grouped = {word for words in re.findall(r"by \(([^)]*)\)", expression) for word in re.split(r",\s*", words)}
        filtered = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression))
        for name in names:
            assert shown | grouped | filtered <= labels[name], (expression, told)
        # What sums leave over is all that a legend can name.
        assert not grouped or shown <= grouped, (expression, told)
    assert len({name for expression, _ in ASKED for name in re.findall(r"straggler_\w+", expression)}) > 15


# ---- by a Prometheus


@NEEDS_PROMETHEUS
@pytest.mark.alone
async def test_prometheus_answers_every_panel_and_alert(
    producer: Producer, worker_process: StartProcess, redis_url: str, tmp_path: Path
) -> None:
    async with targets(producer, worker_process, redis_url) as ports:
        with prometheus(ports, tmp_path) as address:
            await until_answered(producer, address)
            told = await asyncio.to_thread(ask, address, "rules")
            assert [rule["health"] for group in told["groups"] for rule in group["rules"]] == ["ok"] * len(RULES)
            found = await asyncio.to_thread(ask, address, "targets")
            assert [target["health"] for target in found["activeTargets"]] == ["up"] * 2
            [variable] = [each for each in GRAFANA["templating"]["list"] if each["type"] == "query"]
            [(series, label)] = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            values = await asyncio.to_thread(ask, address, f"label/{label}/values", **{"match[]": series})
            assert {"square", "fail", "hang"} <= set(values)


async def until_answered(producer: Producer, address: str) -> None:
    """Submit jobs until each expression has a value that is a number."""
    missing = [filled_in(expression) for expression, _ in ASKED]
    try:
        async with asyncio.timeout(PATIENCE):
            while missing:
                jobs: list[JobSpec[Any]] = [*square.map(range(20)), fail.spec("x"), hang.spec(timeout=0.05)]
                await (await producer.submit(jobs)).results()
                missing = [text for text in missing if not await asyncio.to_thread(has_number, address, text)]
    except TimeoutError:
        pytest.fail(f"no value of {missing}")


def has_number(address: str, expression: str) -> bool:
    found = ask(address, "query", query=expression)["result"]
    return bool(found) and any(series["value"][1] != "NaN" for series in found)


def filled_in(expression: str) -> str:
    """Fill in what Grafana does; a comparison gives 0 or 1, where an alert that is quiet would give nothing."""
    text = expression.replace("$function", ".*").replace("$__rate_interval", "10s").replace("10m]", "10s]")
    return re.sub(r"(==|>) (\d)", r"\1 bool \2", text)


@asynccontextmanager
async def targets(producer: Producer, worker_process: StartProcess, redis_url: str) -> AsyncIterator[list[int]]:
    """Run a worker that has run jobs of each kind, and a dashboard, each of which serves metrics; gives the ports."""
    started = await asyncio.to_thread(worker_process, command=["straggler", "worker", "--metrics-port", "0"])
    await (await producer.submit([square.spec(1), fail.spec("x"), hang.spec(timeout=0.05)])).results()
    board = await asyncio.to_thread(
        worker_process, command=["straggler", "dashboard", "--port", "0", "--redis", redis_url], ready="dashboard on"
    )
    found = [re.search(rf"{said} http://127\.0\.0\.1:(\d+)", each.output) for said, each in
             (("metrics are served at", started), ("dashboard on", board))]  # fmt: skip
    yield [int(each[1]) for each in found if each]


@contextmanager
def prometheus(ports: list[int], folder: Path) -> Iterator[str]:
    """Run a Prometheus with our rules, which scrapes these ports twice a second; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(DOCS / "alerts.yml")],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{each}"]}]}
            for name, each in zip(("straggler-workers", "straggler-dashboard"), ports, strict=True)
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--log.level=error"]
    process = subprocess.Popen([PROMETHEUS, *words, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ask(address: str, path: str, **query: str) -> Any:
    """Ask Prometheus' HTTP API; what it says while it starts is no answer."""
    try:
        told = json.loads(fetch(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
    except OSError:
        return {"result": []}
    assert told["status"] == "success", told
    return told["data"]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # on the loopback
        return str(answer.read().decode())
