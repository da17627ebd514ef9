"""Result files: every row is there as soon as its result came, whatever its value is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet
import pytest
from pydantic import BaseModel, PlainSerializer, computed_field

from producer.export import Export, ExportError
from producer.files import parquet
from producer.files.tables import COLUMNS, columns_of
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
    assert list(first) == list(COLUMNS)
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
    with pytest.raises(OptionError, match=r"--out .*r\.xlsx: results are written as \.jsonl, \.csv or \.parquet"):
        Export(str(tmp_path / "r.xlsx"))
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


# ---- flat models


class Colour(StrEnum):
    RED = "red"


class User(BaseModel):
    id: int
    name: str
    score: float | None = None
    colour: Colour = Colour.RED
    born: date | None = None
    seen: datetime | None = None
    active: bool = True

    @computed_field
    def initial(self) -> str:
        return self.name[:1]


FIELDS = ["id", "name", "score", "colour", "born", "seen", "active", "initial"]


@pytest.fixture
def users() -> list[Result[Any]]:
    @job(name="export.user")
    async def user() -> User:
        raise NotImplementedError

    seen = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    return [
        TimeoutResult(**{**COMMON, "function": "export.user"}, limit=3, phase="running", stopped="late"),
        success(User(id=1, name="ann", score=0.5, born=date(2000, 2, 3), seen=seen), function="export.user"),
        success(User(id=1 << 62, name="bo, b"), function="export.user"),
        success({"another": ["function"]}, function="not at hand"),
    ]


def test_csv_has_a_column_for_each_field_of_a_flat_model(tmp_path: Path, users: list[Result[Any]]) -> None:
    late, ann, bob, other = csv.DictReader(export(tmp_path / "r.csv", users).splitlines(keepends=True))
    assert list(late) == [*COLUMNS, *(f"value.{name}" for name in FIELDS)]
    assert [ann[f"value.{name}"] for name in FIELDS] == [
        "1", "ann", "0.5", "red", "2000-02-03", "2026-01-02T03:04:05.000006Z", "true", "a",
    ]  # fmt: skip
    assert (bob["value.name"], bob["value.score"], bob["value"]) == ("bo, b", "", "")
    assert (json.loads(other["value"]), other["value.id"]) == ({"another": ["function"]}, "")
    assert (late["status"], late["value"], late["value.id"]) == ("timeout", "", "")


def test_appended_csv_keeps_the_columns_that_it_has(tmp_path: Path, users: list[Result[Any]]) -> None:
    path = tmp_path / "r.csv"
    export(path, [success(1)])
    rows = list(csv.DictReader(export(path, users, append=True).splitlines(keepends=True)))
    assert list(rows[0]) == list(COLUMNS)
    assert json.loads(rows[2]["value"])["name"] == "ann"


def test_parquet_has_typed_columns(tmp_path: Path, users: list[Result[Any]]) -> None:
    path = tmp_path / "r.parquet"
    with Export(str(path)) as file:
        file.begin()
        for result in users:
            file.write(result)
        file.complete()
    table = pyarrow.parquet.read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    assert list(types) == [*COLUMNS, *(f"value.{name}" for name in FIELDS)]
    assert [types[f"value.{name}"] for name in FIELDS] == [
        "int64", "string", "double", "string", "date32[day]", "timestamp[us, tz=UTC]", "bool", "string",
    ]  # fmt: skip
    assert types["started_at"] == "timestamp[us, tz=UTC]"
    late, ann, bob, other = table.to_pylist()
    assert ann["value.seen"] == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (ann["value.born"], ann["value.score"], ann["value"]) == (date(2000, 2, 3), 0.5, None)
    assert (bob["value.id"], bob["value.score"]) == (1 << 62, None)
    assert (json.loads(other["value"]), other["value.id"]) == ({"another": ["function"]}, None)
    assert (late["status"], late["limit"], late["duration"], late["started_at"]) == ("timeout", 3.0, None, None)
    assert ann["finished_at"] == datetime(1970, 1, 1, 0, 0, 4, 500_000, tzinfo=UTC)
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.parquet"]


@pytest.mark.parametrize(
    ("field", "cell"), [("id", 1 << 70), ("id", "x"), ("score", "x"), ("active", 1), ("name", 5), ("seen", "soon")]
)
def test_parquet_keeps_a_field_that_does_not_fit_as_json(tmp_path: Path, field: str, cell: Any) -> None:
    @job(name="export.user")
    async def user() -> User:
        raise NotImplementedError

    rows, path = tmp_path / "rows", tmp_path / "r.parquet"
    value = {"id": 1, "name": "ann", field: cell}
    rows.write_text(json.dumps({**COMMON, "function": "export.user", "status": "success", "value": value}) + "\n")
    parquet.write(rows, path)
    [row] = pyarrow.parquet.read_table(path).to_pylist()
    assert json.loads(row["value"]) == value
    assert row["value.name"] is None


@pytest.mark.parametrize("text", ["\ud800", "plain"])
def test_parquet_takes_texts_that_are_no_unicode(tmp_path: Path, text: str) -> None:
    failure = FailureResult.model_construct(**COMMON, error_type="E", message=text, traceback="", status="failure")
    path = tmp_path / "r.parquet"
    with Export(str(path)) as file:
        file.begin()
        file.write(failure)
        file.write(success({"a": text}))
    first, second = pyarrow.parquet.read_table(path).to_pylist()
    assert first["message"] == text.encode(errors="backslashreplace").decode()
    assert json.loads(second["value"]) == {"a": text}


def test_parquet_without_pyarrow_is_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'straggler\[parquet\]'"):
        Export(str(tmp_path / "r.parquet"))


def test_old_parquet_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    path.write_text("old")
    with Export(str(path)) as file:
        file.begin()
        file.write(success(1))
        assert path.read_text() == "old"
    assert pyarrow.parquet.read_table(path).num_rows == 1


@dataclass
class Pair:
    left: int
    right: str


class Nested(BaseModel):
    pair: Pair


class Undecided(BaseModel):
    either: int | str


@pytest.mark.parametrize(
    ("returned", "fields"),
    [
        (Pair, {"value.left": "int", "value.right": "str"}),
        (Pair | None, {"value.left": "int", "value.right": "str"}),
        (Nested, {}),
        (Undecided, {}),
        (list[Pair], {}),
        (dict[str, int], {}),
        (int, {}),
        (Any, {}),
        ("nowhere to be found", {}),
        (User | Pair, {}),
    ],
)
def test_only_a_flat_value_has_columns_of_its_own(returned: Any, fields: dict[str, str]) -> None:
    async def function() -> None: ...

    function.__annotations__["return"] = returned
    job(name="export.flat")(function)
    assert {name: kind for name, kind in columns_of("export.flat").items() if name not in COLUMNS} == fields
