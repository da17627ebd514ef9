"""The demo, as `make demo` runs it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "examples" / "demo.py"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_ends_with_the_results_that_it_promises(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    ran = subprocess.run(
        [sys.executable, str(DEMO), str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [json.loads(line) for line in (folder / "urls.jsonl").read_text().splitlines()]
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len({row["url"] for row in rows}) == 1000
    assert sorted(result["index"] for result in results) == list(range(1000))
    for result in results:
        url = rows[result["index"]]["url"]
        match url.split("/")[3]:
            case "page":
                assert result["status"] == "success"
            case "never-answers":
                assert (result["status"], result["phase"], result["limit"]) == ("timeout", "running", 3)
            case "answers-500":
                assert result["message"] == f"500 Internal Server Error for {url}"
            case "stops-half-way":
                assert result["error_type"] == "aiohttp.client_exceptions.SocketTimeoutError"
    assert "5x workers.library.http.HTTPStatusError: 500" in ran.stderr + ran.stdout  # the closing table
    assert "s from the start of the batch to its last result" in ran.stdout


def results_of(**counts: int) -> list[dict[str, object]]:
    times = {"enqueued_at": 1.0, "finished_at": 2.0}
    kinds = {
        "success": {"status": "success"},
        "timeout": {"status": "timeout", "phase": "running"},
        "error": {"status": "failure", "error_type": "E", "message": "500 Internal Server Error for http://x"},
        "silence": {"status": "failure", "error_type": "aiohttp.SocketTimeoutError", "message": ""},
    }
    return [{**times, **kinds[kind]} for kind, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("successes", "code", "verdict", "said"),
    [(980, 3, 0, "as expected"), (979, 3, 1, "FAILED"), (981, 3, 1, "FAILED"), (980, 0, 1, "FAILED")],
)
def test_demo_fails_where_counts_or_exit_code_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], successes: int, code: int, verdict: int, said: str
) -> None:
    demo = load("demo")
    results = results_of(success=successes, timeout=10, error=5, silence=5)
    assert demo.judge(results, code, 1.0, tmp_path) == verdict
    assert said in capsys.readouterr().out


def test_servers_pages_are_as_many_where_python_ships_without_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, packages = tmp_path / "lib", tmp_path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    for number in range(600):
        (library / f"module_{number}.py").touch()
        (packages / f"module_{number + 100}.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(library), "purelib": str(packages)}.__getitem__)
    server = load("demo_server")

    monkeypatch.setattr(server, "PAGES", 700)
    pages = server.find_pages()
    assert len(pages) == 700
    assert sum(path.parent == library for path in pages.values()) == 600
    monkeypatch.setattr(server, "PAGES", 701)
    with pytest.raises(SystemExit, match="only 700 source files"):
        server.find_pages()


def test_server_serves_real_sources_and_nothing_else() -> None:
    with load("demo").serve() as address:
        library = Path(sysconfig.get_path("stdlib"))
        with urlopen(f"{address}/page/abc.py") as answer:  # noqa: S310  # our own server
            assert answer.read() == (library / "abc.py").read_bytes()
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{address}/page/../../../../etc/passwd")  # noqa: S310  # our own server
        assert refused.value.code == 404
        refused.value.close()
