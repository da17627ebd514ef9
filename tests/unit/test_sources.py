"""Input files: what becomes a job, and what is said of a row that does not."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from producer.files import rows
from producer.sources import Source, find_format, refuse
from protocol.errors import InputError, OptionError
from protocol.jobs import JobSpec
from straggler import job


@job(name="sources.fetch")
async def fetch(url: str, timeout: float = 1.0) -> None: ...


@job(name="sources.anything")
async def anything(**fields: str) -> None: ...


def source(path: Path, content: bytes | str, function: str = "sources.fetch", **options: Any) -> Source:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(str(path), find_format(str(path), None), function, **options)


def read(source: Source) -> tuple[list[JobSpec[Any]], list[str]]:
    bad: list[str] = []
    found = list(source.jobs(lambda error: bad.append(str(error))))
    return found, [text.removeprefix(source.path) for text in bad]


# ---- good rows


def test_line_of_a_txt_is_one_argument_and_the_key(tmp_path: Path) -> None:
    jobs, bad = read(source(tmp_path / "a.txt", "http://a\n  two words \n"))
    assert [(job.args, job.key) for job in jobs] == [(("http://a",), "http://a"), (("  two words ",), "  two words ")]
    assert not bad


def test_blank_lines_bom_and_crlf_are_no_part_of_rows(tmp_path: Path) -> None:
    for name in ("a.txt", "b"):
        jobs, _ = read(source(tmp_path / name, b"\xef\xbb\xbfhttp://a\r\n\r\n   \r\nhttp://b"))
        assert [job.args for job in jobs] == [("http://a",), ("http://b",)]


def test_jsonl_object_is_keywords_array_positionals_scalar_one_argument(tmp_path: Path) -> None:
    content = '{"url": "a", "timeout": 2}\n["b", 3]\n"c"\n'
    jobs, bad = read(source(tmp_path / "a.jsonl", content))
    assert not bad
    assert [(job.args, job.kwargs) for job in jobs] == [((), {"url": "a", "timeout": 2}), (("b", 3), {}), (("c",), {})]
    assert [job.key for job in jobs] == ["a", "b", "c"]


def test_value_that_is_no_text_is_the_key_as_json(tmp_path: Path) -> None:
    jobs, _ = read(source(tmp_path / "a.jsonl", '7\n[[1,2]]\n{}\n[]\nnull\n"x"\n', function="unknown"))
    assert [job.key for job in jobs] == ["7", "[1,2]", None, None, None, "x"]


def test_key_is_cut_to_what_a_job_may_have(tmp_path: Path) -> None:
    [job], bad = read(source(tmp_path / "a.txt", "x" * 5000))
    assert (job.key, job.args, bad) == ("x" * 1024, ("x" * 5000,), [])


def test_csv_header_names_the_parameters(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfurl, timeout\r\na,2\r\n\r\n"b, c\r\nd",3\r\n'
    jobs, bad = read(source(tmp_path / "a.csv", content))
    assert not bad
    assert [job.kwargs for job in jobs] == [{"url": "a", "timeout": "2"}, {"url": "b, c\r\nd", "timeout": "3"}]


def test_empty_cell_is_an_argument_that_is_not_given(tmp_path: Path) -> None:
    jobs, bad = read(source(tmp_path / "a.csv", "url,timeout\na,\n,2\n"))
    assert [job.kwargs for job in jobs] == [{"url": "a"}]
    assert bad == [" line 3: sources.fetch: url: Field required"]


def test_key_field_that_is_a_parameter_stays_an_argument(tmp_path: Path) -> None:
    [job], _ = read(source(tmp_path / "a.csv", "timeout,url\n3,a\n", key_field="url"))
    assert (job.key, job.kwargs) == ("a", {"timeout": "3", "url": "a"})


def test_key_field_that_is_no_parameter_is_the_key_alone(tmp_path: Path) -> None:
    [job], _ = read(source(tmp_path / "a.csv", "id,url\n17,a\n", key_field="id"))
    assert (job.key, job.kwargs) == ("17", {"url": "a"})
    [job], _ = read(source(tmp_path / "a.jsonl", '{"id": 17, "url": "a"}', key_field="id"))
    assert (job.key, job.kwargs) == ("17", {"url": "a"})
    [job], _ = read(source(tmp_path / "a.jsonl", '{"id": "17"}', key_field="id", function="sources.anything"))
    assert (job.key, job.kwargs) == ("17", {"id": "17"})


def test_rows_of_a_function_that_is_not_at_hand_go_unchecked(tmp_path: Path) -> None:
    jobs, bad = read(source(tmp_path / "a.csv", "what,ever\n1,2\n", function="unknown", key_field="what"))
    assert ([job.kwargs for job in jobs], bad) == ([{"what": "1", "ever": "2"}], [])


def test_file_is_streamed(tmp_path: Path) -> None:
    # A pipe that is never closed: reading ahead to its end would wait for ever.
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)

    piped = Source(str(pipe), "txt", "sources.fetch")
    assert not piped.is_rereadable
    ends: list[int] = []

    def write() -> None:
        ends.append(os.open(pipe, os.O_WRONLY))
        os.write(ends[0], b"a\nb\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    jobs = piped.jobs(refuse)
    assert [next(jobs).key, next(jobs).key] == ["a", "b"]
    writer.join()
    jobs.close()  # type: ignore[attr-defined]  # a generator
    os.close(ends[0])


# ---- bad rows


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '"a"\n\n{"url": "b"\n"c"\n', " line 3: not JSON: "),
        (
            "a.jsonl",
            '{"url": "b", "timeout": "x"}\n',
            " line 1: sources.fetch: timeout: Input should be a valid number",
        ),
        ("a.jsonl", '["a", 1, 2]\n', " line 1: sources.fetch takes at most 2 positional arguments, got 3"),
        ("a.jsonl", '{"uri": "a"}\n', " line 1: sources.fetch: url: Field required; uri: Extra inputs"),
        ("a.csv", "url,timeout\na,1\nb,c\n", " line 3: sources.fetch: timeout: Input should be a valid number"),
        ("a.csv", 'url,timeout\n"a\nb",1\nc,1,2\n', " line 4: 3 fields where the header has 2; the row starts 'c,1,2'"),
        ("a.csv", 'url,timeout\na,1\n"b"c,1\n', " line 3: not CSV: ',' expected after '\"' (read up to line 3)"),
        ("a.csv", 'url,timeout\na,1\n"b,1\nc,2\n', " line 3: not CSV: unexpected end of data (read up to line 4)"),
    ],
)
def test_bad_row_is_named_by_file_line_and_value(tmp_path: Path, name: str, content: str, expected: str) -> None:
    _, bad = read(source(tmp_path / name, content))
    assert len(bad) == 1
    assert bad[0].startswith(expected)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_row_that_is_not_utf8_costs_itself_only(tmp_path: Path, name: str) -> None:
    header = b"url\n" if name == "a.csv" else b""
    quoted = b'"%s"\n' if name == "a.jsonl" else b"%s\n"
    jobs, bad = read(source(tmp_path / name, header + quoted % b"a" + quoted % b"caf\xe9" + quoted % "caffè".encode()))
    assert [job.key for job in jobs] == ["a", "caffè"]
    line = 3 if name == "a.csv" else 2
    assert len(bad) == 1
    assert bad[0].startswith(f" line {line}: not UTF-8: ")
    assert "caf" in bad[0]


def test_line_that_is_far_too_long_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LONGEST_LINE", 10)
    jobs, bad = read(source(tmp_path / "a.txt", "a\n" + 100 * "x" + "\nb\n"))
    assert [job.key for job in jobs] == ["a", "b"]
    assert bad == [" line 2: longer than 10 bytes; the row starts b'xxxxxxxxxx'"]


def test_arguments_over_the_limit_are_a_bad_row(tmp_path: Path) -> None:
    _, bad = read(source(tmp_path / "a.txt", "x" * 200, limit_bytes=100))
    assert " line 1: the arguments of job 'sources.fetch'" in bad[0]
    assert "at most 100 may travel" in bad[0]


def test_row_without_the_key_field_is_a_bad_row(tmp_path: Path) -> None:
    _, bad = read(source(tmp_path / "a.jsonl", '{"url": "a"}\n["a"]\n', key_field="id"))
    assert bad == [
        " line 1: no field 'id' for the job's key; it has url",
        " line 2: no field 'id' for the job's key; it has none",
    ]


def test_function_name_that_cannot_be_is_said(tmp_path: Path) -> None:
    _, bad = read(source(tmp_path / "a.txt", "a\n", function=""))
    assert "function: String should have at least 1 character" in bad[0]


def test_refuse_ends_the_reading_and_names_the_cure(tmp_path: Path) -> None:
    jobs = source(tmp_path / "a.jsonl", '"a"\n{\n"b"\n').jobs(refuse)
    assert next(jobs).key == "a"
    with pytest.raises(InputError, match=r"a\.jsonl line 2: not JSON.*\(--skip-bad-rows goes on without such rows\)"):
        next(jobs)


# ---- files that cannot be


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("url,", "a column without a name"),
        ("url,url", "column 'url' is there twice"),
        ("url,foo", "column 'foo' is no parameter of sources.fetch, which takes url, timeout"),
        (b"url,\xe9", "the header, line 1: not UTF-8"),
        ('url,"a"b', "the header, line 1: not CSV"),
    ],
)
def test_csv_header_that_cannot_be_ends_the_reading(tmp_path: Path, header: str | bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read(source(tmp_path / "a.csv", header))


def test_columns_may_have_any_name_where_the_function_takes_any(tmp_path: Path) -> None:
    [job], _ = read(source(tmp_path / "a.csv", "x,y\n1,2\n", function="sources.anything"))
    assert job.kwargs == {"x": "1", "y": "2"}


def test_key_field_that_no_row_can_have_is_an_option_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--key id: .* line 1 has no such column, only url"):
        read(source(tmp_path / "a.csv", "url\n", key_field="id"))
    with pytest.raises(OptionError, match="--key id: a line of a txt file has no fields"):
        read(source(tmp_path / "a.txt", "a\n", key_field="id"))


def test_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.txt cannot be read: No such file or directory"):
        read(Source(str(tmp_path / "no.txt"), "txt", "sources.fetch"))


def test_format_is_told_by_the_name() -> None:
    names = ["-", "urls", "u.TXT", "u.jsonl", "u.ndjson", "u.csv"]
    assert [find_format(name, None) for name in names] == ["txt", "txt", "txt", "jsonl", "jsonl", "csv"]
    assert find_format("u.txt", "csv") == "csv"
    with pytest.raises(OptionError, match="no format 'xml': use txt, jsonl, csv"):
        find_format("u.xml", "xml")
    with pytest.raises(OptionError, match=r"u\.xml: the name does not tell its format, say --format txt\|jsonl\|csv"):
        find_format("u.xml", None)
