"""The picture of a batch: sound XML that needs no other file, nothing of a job's in it but as text, never too large."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from producer.pictures.page import page
from producer.pictures.picture import draw
from producer.pictures.portrait import Portrait, read_results
from protocol.errors import InputError
from protocol.results import CancelledResult, FailureResult, LostResult, SuccessResult, TimeoutResult

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</text><script>alert(1)</script>&\x00\x1b\ud800\n\"'"


def portrait(count: int, slots: int = 10, key: str | None = None) -> Portrait:
    chance = random.Random(7)
    made = Portrait(key or "a batch")
    free = [100.0] * slots
    for index in range(count):
        slot = free.index(min(free))
        start = free[slot]
        free[slot] = end = start + chance.lognormvariate(-2, 0.5)
        common: dict[str, Any] = {
            "job_id": f"b:{index}", "index": index, "function": "f", "key": key, "worker": key or "w",
            "enqueued_at": 99.0, "started_at": start, "finished_at": end,
        }  # fmt: skip
        if index % 100 == 7:
            made.add(TimeoutResult(**common, limit=1.0, phase="running", stopped="cancelled"))
        elif index % 100 == 8:
            made.add(FailureResult(**common, error_type="E", message=key or "no"))
        else:
            made.add(SuccessResult(**common, value=1))
    return made


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314  # our own


def test_each_kind_of_result_is_told_and_drawn() -> None:
    svg = draw(portrait(300))
    told = texts(svg)
    assert "a batch" in told
    assert {"294 succeeded", "3 timed out", "3 failed", "wait in the queue", "run time"} <= set(told)
    assert any(re.fullmatch(r"300 jobs in \d+\.\d\d s · \d+ a second · 1 worker, 10 slots used", text) for text in told)
    root = ET.fromstring(svg)  # noqa: S314  # our own
    assert len(root.findall(f".//{SVG}rect[@class='timeout']/{SVG}title")) >= 3
    assert "job 7: timed out in " in svg


def test_many_jobs_are_a_small_file() -> None:
    assert len(draw(portrait(30_000, slots=300))) < 1_000_000


def test_what_did_not_succeed_is_seen_however_rare() -> None:
    svg = draw(portrait(20_000, slots=200))
    assert re.search(r'<path class="timeout" d="M[\d.]+ [\d.]+h(1\.[6-9]|[2-9])', svg)


@pytest.mark.parametrize("drawer", [draw, page])
def test_nothing_of_a_job_is_anything_but_text(drawer: Any) -> None:
    text = drawer(portrait(200, key=EVIL))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not any(letter in text for letter in "\x00\x1b\ud800")
    text.encode()
    if drawer is draw:
        assert any("<script>" in told for told in texts(text))


@pytest.mark.parametrize("drawer", [draw, page])
def test_file_needs_no_other(drawer: Any) -> None:
    text = drawer(portrait(200)).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|url\(|<link|<script|src=|href=|@import", text)
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("drawer", [draw, page])
def test_batch_of_which_nothing_has_run_has_a_picture(drawer: Any) -> None:
    made = Portrait("empty")
    assert "no job has run" in drawer(made)
    common: dict[str, Any] = {"job_id": "b:0", "index": 0, "function": "f", "finished_at": 5.0}
    made.add(CancelledResult(**common, reason="enough"))
    made.add(LostResult(**common, reason="died"))
    assert {"1 cancelled", "1 lost"} <= set(texts(draw(made)))


def test_one_job_that_took_no_time_has_a_picture() -> None:
    made = Portrait("one")
    times: dict[str, Any] = {"enqueued_at": 5.0, "started_at": 5.0, "finished_at": 5.0, "worker": "w"}
    made.add(SuccessResult(job_id="b:0", index=0, function="f", value=1, **times))
    assert "1 jobs in 0 ms" in draw(made)


def test_page_lists_what_went_wrong_and_what_was_slowest() -> None:
    text = page(portrait(300))
    assert "<h2>Failures</h2>" in text
    assert '<td class="">E: no</td>' in text
    assert "<h2>Slowest</h2>" in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 is no result: Expecting"),
        ("[1]", "line 2 is no result: it has no status"),
        ('{"status": "odd"}', "line 2 is no result: it has no status"),
        ('{"status": "lost"}', "line 2 is no result: job_id"),
    ],
)
def test_line_that_is_no_result_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "r.jsonl"
    good = LostResult(job_id="b:0", index=0, function="f", reason="died").model_dump_json()
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=re.escape(problem)):
        list(read_results(path))


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_results(tmp_path / "r.jsonl"))
