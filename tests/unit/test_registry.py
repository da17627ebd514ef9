"""`@job`: a function stays what it was, and is found again by its name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import signatures
from protocol.errors import InputError, OptionError, UnknownFunctionError
from protocol.jobs import JobSpec
from tests.jobs import square
from workers import loading, registry
from workers.registry import job


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_jobs", dict(registry._jobs))
    monkeypatch.setattr(signatures, "_known", dict(signatures._known))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "_of_a_test" in name:
            del sys.modules[name]


async def test_a_job_stays_a_plain_function_when_called() -> None:
    assert await square(3) == 9
    assert (getattr(square, "__name__", None), square.__module__) == ("square", "tests.jobs")
    assert repr(square) == "<job square>"


def test_a_job_describes_calls_of_itself() -> None:
    assert square.spec(3, key="three", timeout=1, queue_timeout=2) == JobSpec[int](
        function="square", args=(3,), key="three", timeout=1, queue_timeout=2
    )
    assert square.spec(number=3) == JobSpec[int](function="square", kwargs={"number": 3})
    with pytest.raises(OptionError, match=r"job 'square': timeout: .*got 0"):
        square.spec(3, timeout=0)


def test_a_job_may_have_another_name_than_its_function() -> None:
    @job(name="fetch", timeout=3)
    async def anything() -> None: ...

    assert registry.find("fetch") is anything
    assert anything.timeout == 3
    assert "fetch" in registry.names()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_cannot_be_is_refused(timeout: float) -> None:
    with pytest.raises(OptionError, match=r"@job\(timeout=.*\): a timeout is a finite number"):
        job(timeout=timeout)


def test_two_jobs_of_one_name_are_refused() -> None:
    def another() -> Any:
        @job(name="square")
        async def other() -> None: ...

        return other

    with pytest.raises(OptionError, match=r"two jobs are named 'square': .*jobs.py:square and .*other"):
        another()
    assert registry.find("square") is square


def test_the_same_function_may_be_registered_again() -> None:
    def define() -> Any:
        @job
        async def reloaded() -> None: ...

        return reloaded

    define()
    assert registry.find("reloaded") is not define()


def test_an_unknown_job_is_refused_with_those_that_are_alike() -> None:
    with pytest.raises(UnknownFunctionError, match=r"no job 'sqare' here: did you mean .*square"):
        registry.find("sqare")
    with pytest.raises(UnknownFunctionError, match=r"no job 'zzz' here: known are .*append_line, .*--jobs"):
        registry.find("zzz")
    with pytest.raises(UnknownFunctionError, match=r"no job 'no\.such' here"):
        registry.find("no.such")
    with pytest.raises(UnknownFunctionError, match=r"no job '\.\./x\.y' here"):
        registry.find("../x.y")


def test_a_ready_made_job_is_found_without_an_import() -> None:
    assert registry.find("http.fetch").name == "http.fetch"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_jobs_of_a_module_or_a_file_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from straggler import job\n@job\nasync def {}(): ...\n"
    write(tmp_path / "module_of_a_test.py", code.format("from_module"))
    (tmp_path / "deep").mkdir()
    file = write(tmp_path / "deep" / "file_of_a_test.py", code.format("from_file"))
    loading.load_all(f" module_of_a_test, {file} ,")
    assert {"from_module", "from_file"} <= set(registry.names())


def test_a_file_that_brings_no_job_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    imports = "from straggler import job\n"
    write(tmp_path / "no_jobs_of_a_test.py", f"{imports}async def forgotten(): ...\n")
    write(tmp_path / "jobs_of_a_test.py", f"{imports}@job\nasync def known_of_a_test(): ...\n")
    write(tmp_path / "others_jobs_of_a_test.py", "from jobs_of_a_test import known_of_a_test\n")
    write(tmp_path / "imports_of_a_test.py", "import deep_jobs_of_a_test\n")
    write(tmp_path / "deep_jobs_of_a_test.py", f"{imports}@job\nasync def deep_of_a_test(): ...\n")
    loading.load_all("no_jobs_of_a_test.py,jobs_of_a_test.py,others_jobs_of_a_test,imports_of_a_test")
    assert caplog.messages == [
        "no_jobs_of_a_test.py has no jobs: put @job (from straggler import job) above its functions"
    ]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("nowhere_of_a_test", "module 'nowhere_of_a_test' cannot be imported: ModuleNotFoundError"),
        ("nowhere_of_a_test.py", "no file 'nowhere_of_a_test.py' here"),
        ("broken_of_a_test", "module 'broken_of_a_test' cannot be imported: ZeroDivisionError: division by zero"),
        ("leaving_of_a_test", "module 'leaving_of_a_test' cannot be imported: SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_said_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "broken_of_a_test.py", "1 / 0\n")
    write(tmp_path / "leaving_of_a_test.py", "raise SystemExit(3)\n")
    with pytest.raises(InputError, match=message) as raised:
        loading.load(module)
    assert "\n" not in str(raised.value)


def test_a_file_whose_name_another_module_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("")
    with pytest.raises(InputError, match="as Python has another module named 'json'"):
        loading.load(str(tmp_path / "json.py"))
