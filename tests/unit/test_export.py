"""Result files: every row is there as soon as its result came, whatever its value is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import PlainSerializer

from producer.export import COLUMNS, Export, ExportError
from protocol.errors import OptionError
from protocol.results import FailureResult, LostResult, Result, SuccessResult, TimeoutResult
from straggler import job

COMMON: dict[str, Any] = {"job_id": "b:3", "index": 3, "function": "fetch", "key": "k", "worker": "w", "attempt": 2}
TIMES: dict[str, Any] = {"enqueued_at": 1.0, "started_at": 2.0, "finished_at": 4.5}


def success(value: Any, **fields: Any) -> SuccessResult[Any]:
    return SuccessResult(**{**COMMON, **TIMES, "value": value, **fields})


def export(path: Path, results: Iterable[Result[Any]], *, append: bool = False) -> str:
    with Export(str(path), append=append) as file:
        file.begin()
        for result in results:
            file.write(result)
    return path.read_text()


def test_jsonl_row_is_the_result(tmp_path: Path) -> None:
    results: list[Result[Any]] = [
        success({"a": [1, None]}),
        TimeoutResult(**COMMON, limit=3, phase="running", stopped="late"),
        FailureResult(**COMMON, error_type="ValueError", message="a\nb", traceback="..."),
    ]
    rows = [json.loads(line) for line in export(tmp_path / "r.jsonl", results).splitlines()]
    assert rows == [json.loads(result.model_dump_json()) for result in results]


def test_csv_has_a_column_for_each_field(tmp_path: Path) -> None:
    results: list[Result[Any]] = [
        success({"a": 1}),
        FailureResult(**COMMON, error_type="ValueError", message='two\nlines, "quoted"'),
        LostResult(**COMMON, reason="out of memory"),
    ]
    [first, second, third] = csv.DictReader(export(tmp_path / "r.csv", results).splitlines(keepends=True))
    assert tuple(first) == COLUMNS
    assert (first["index"], first["key"], first["status"], first["duration"]) == ("3", "k", "success", "2.5")
    assert json.loads(first["value"]) == {"a": 1}
    assert (second["message"], second["value"], second["duration"]) == ('two\nlines, "quoted"', "", "")
    assert third["reason"] == "out of memory"


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_row_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path, name: str) -> None:
    with Export(str(tmp_path / name)) as file:
        file.begin()
        file.write(success("first"))
        assert "first" in (tmp_path / name).read_text()


def test_file_is_emptied_only_when_the_batch_begins(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("old\n")
    with Export(str(path)) as file:
        assert path.read_text() == "old\n"
        file.begin()
        assert path.read_text() == ""


def test_overwritten_csv_has_its_header(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    export(path, [success(1)])
    assert [row["value"] for row in csv.DictReader(export(path, [success(2)]).splitlines())] == ["2"]


def test_appended_csv_has_one_header(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    export(path, [success(1)], append=True)
    text = export(path, [success(2)], append=True)
    assert [row["value"] for row in csv.DictReader(text.splitlines())] == ["1", "2"]


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


Celsius = Annotated[float, PlainSerializer(lambda degrees: f"{degrees} C", return_type=str)]


@dataclass
class Opaque:
    """Of no type that JSON knows, where no annotation says how."""

    handle: object


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xff\x00", "_wA="),
        (float("nan"), float("nan")),
        (Opaque(handle=object), "Opaque(handle=<class 'object'>)"),
        ({"a": object}, {"a": "<class 'object'>"}),
        ({"a": "\ud800"}, {"a": "\ud800"}),
        (_circle(), "[[...]]"),
    ],
)
def test_value_that_is_no_json_loses_no_row(tmp_path: Path, name: str, value: Any, expected: Any) -> None:
    text = export(tmp_path / name, [success(value, function="not at hand")])
    if name == "r.csv":
        [row] = csv.DictReader(text.splitlines())
        written = json.loads(row["value"])
    else:
        row = json.loads(text)
        written = row["value"]
    assert str(written) == str(expected)
    assert (str(row["index"]), row["key"], row["status"]) == ("3", "k", "success")


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_value_of_a_declared_type_is_written_as_it_travelled(tmp_path: Path, name: str) -> None:
    @job(name="export.measure")
    async def measure() -> Celsius:
        return 1.0

    @job(name="export.text")
    async def text() -> str:
        return ""

    results = [success(3.5, function="export.measure"), success("plain", function="export.text")]
    written = export(tmp_path / name, results)
    if name == "r.csv":
        assert [row["value"] for row in csv.DictReader(written.splitlines())] == ['"3.5 C"', '"plain"']
    else:
        assert [json.loads(line)["value"] for line in written.splitlines()] == ["3.5 C", "plain"]


def test_lone_surrogate_in_a_message_loses_no_row(tmp_path: Path) -> None:
    failure = FailureResult.model_construct(**COMMON, error_type="E", message="bad \udce9", traceback="")
    for name in ("r.csv", "r.jsonl"):
        assert "bad \\udce9" in export(tmp_path / name, [failure]).replace("\\\\", "\\")


def test_dash_writes_jsonl_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Export("-") as file:
        file.begin()
        file.write(success(1))
    assert json.loads(capsys.readouterr().out)["value"] == 1


def test_name_of_another_kind_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--out .*r\.parquet: results are written as \.jsonl or \.csv"):
        Export(str(tmp_path / "r.parquet"))
    assert not list(tmp_path.iterdir())


def test_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no/r\.jsonl: No such file or directory"):
        Export(str(tmp_path / "no" / "r.jsonl"))
    with Export(str(_full(tmp_path))) as file, pytest.raises(ExportError, match="space"):
        file.write(success(1))


def _full(folder: Path) -> Path:
    path = folder / "full.jsonl"
    path.symlink_to("/dev/full")
    return path
