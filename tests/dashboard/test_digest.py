"""What is known of a batch from its results: counted, grouped, and found again."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard import digest as digest_module
from dashboard.digest import Digest
from dashboard.fingerprints import fingerprint, normalise
from dashboard.index import Index
from dashboard.keytexts import KeyTexts, holds
from producer.records import Position
from protocol.results import Result
from tests.dashboard.results import cancelled, facts_of, failure, lost, success, timeout


def digest_of(*results: Result[Any]) -> Digest:
    made = Digest(100.0)
    for number, result in enumerate(results):
        made.add_entry(f"{1000 + number}-0", facts_of(result))
    return made


# ---- fingerprints


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("no user 17", "no user #"),
        ("took 1.25 s of 3,000", "took # s of #"),
        ("GET https://example.com/a?b=1 failed", "GET URL failed"),
        ("bad url 'http://x.y/1', try again", "bad url 'URL', try again"),
        ("order 7f9c24e8-3b12-4c1a-9d3e-1a2b3c4d5e6f is gone", "order UUID is gone"),
        ("object at 0x7f12ab", "object at HEX"),
        ("commit 3f786850e387550fdab836ed7e6dc881de23001b", "commit HEX"),
        ("facade", "facade"),
        ("first line\nsecond 2", "first line"),
        ("", ""),
    ],
)
def test_message_is_left_without_what_differs_from_job_to_job(message: str, pattern: str) -> None:
    assert normalise(message) == pattern


def test_failures_of_one_type_and_pattern_have_one_fingerprint() -> None:
    same = {fingerprint(failure(1, "no user 1")), fingerprint(failure(2, "no user 22"))}
    other = {fingerprint(failure(1, "no user 1", "KeyError")), fingerprint(failure(1, "no group 1"))}
    assert len(same) == 1
    assert len(same | other) == 3
    assert len({mark.id for mark in same | other}) == 3


def test_fingerprint_of_a_timeout_says_which_clock_ran_out_and_how_it_was_stopped() -> None:
    assert fingerprint(timeout()).kind == "while running, cancelled"
    assert fingerprint(timeout(phase="queued", stopped="not started")).kind == "while queued"


def test_fingerprints_of_the_others_are_their_reasons() -> None:
    assert fingerprint(cancelled(reason="")).kind == "on request"
    assert fingerprint(cancelled(reason="past 10 failures")).kind == "past # failures"
    assert fingerprint(lost(reason="worker 7 died")).kind == "worker # died"
    assert fingerprint(success()).kind == ""


def test_fingerprint_takes_any_text() -> None:
    assert len(fingerprint(failure(message="\ud800 \x00")).id) == 12


# ---- counting


def test_digest_counts_by_status_and_groups_what_did_not_succeed() -> None:
    known = digest_of(success(0), failure(1, "no 1"), failure(2, "no 2"), failure(3, "else"), timeout(4))
    assert known.count == 5
    assert dict(known.counts) == {"success": 1, "failure": 3, "timeout": 1}
    assert [(group.fingerprint.pattern, group.count) for group in known.groups("failure")] == [("no #", 2), ("else", 1)]
    assert len(known.groups()) == 3
    [first, _] = known.groups("failure")
    assert first.sample.index == 1
    assert known.index.jobs(first.rows) == [1, 2]
    assert known.group(first.fingerprint.id) is first
    assert known.group("unknown") is None


def test_digest_knows_times_by_function() -> None:
    quick = [success(number, finished_at=101.1) for number in range(30)]
    slow = [success(30 + number, function="slow", finished_at=131.0) for number in range(10)]
    known = digest_of(*quick, *slow)
    assert known.runs.all.count == 40
    assert known.runs_of("fetch").percentile(0.95) == pytest.approx(0.1, rel=0.02)
    assert known.runs_of("slow").percentile(0.95) == pytest.approx(30, rel=0.02)
    assert known.runs_of("unknown").count == 0
    assert known.waits.all.percentile(0.5) == pytest.approx(1.0, rel=0.02)


def test_digest_of_jobs_that_never_started_knows_no_times() -> None:
    known = digest_of(timeout(0, started_at=None, finished_at=None), cancelled(1, started_at=101.0, finished_at=None))
    assert known.runs.all.count == 0
    assert known.waits.all.count == 1
    assert known.lanes.rows() == []


def test_digest_finds_the_slowest_runs() -> None:
    known = digest_of(*(success(number, finished_at=101.0 + number) for number in range(50)))
    assert known.index.jobs(known.slowest()) == list(range(49, 39, -1))


def test_very_many_kinds_of_failure_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "_MOST_GROUPS", 3)
    words = [f"{first}{second}" for first in "abcdefgh" for second in "qrstuvwx"]
    known = digest_of(
        *(failure(number, word) for number, word in enumerate(words)),
        *(failure(number, "x", f"Error{word}") for number, word in enumerate(words)),
    )
    groups = known.groups("failure")
    assert len(groups) == 7
    assert sum(group.count for group in groups) == 128
    assert {("ValueError", "(various messages)"), ("(various)", "")} <= {
        (group.fingerprint.kind, group.fingerprint.pattern) for group in groups
    }


def test_very_many_functions_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "_MOST_FUNCTIONS", 2)
    known = digest_of(*(success(number, function=f"f{number}") for number in range(10)))
    assert known.runs_of("f0").count == 1
    assert known.runs_of("f9").count == 8


# ---- the index


def test_index_tells_where_each_result_stands() -> None:
    index = Index()
    index.begin_entry("1700000000123-4")
    rows = [*index.extend((0, 1), (7, 3), ("k7", "k3"), succeeded=True)]
    index.begin_entry("1700000000999-0")
    rows += index.extend((0,), (5,), None, succeeded=False)
    assert rows == [0, 1, 2]
    assert [index.position(row) for row in range(3)] == [
        Position("1700000000123-4", 0), Position("1700000000123-4", 1), Position("1700000000999-0", 0),
    ]  # fmt: skip
    assert index.position(2).recorded_at == 1700000000.999
    assert index.row_of(3) == 1
    assert (index.row_of(4), index.row_of(-1), index.row_of(1 << 40)) == (None, None, None)


def test_index_takes_so_many_and_beyond_them_what_did_not_succeed() -> None:
    index = Index(most=2)
    index.begin_entry("1-0")
    assert [*index.extend(range(4), range(4), None, succeeded=True)] == [0, 1]
    assert [*index.extend(range(4), range(4, 8), ["a"] * 4, succeeded=False)] == [2, 3]
    assert (len(index), index.skipped) == (4, 4)
    assert index.jobs(index.keys.find("a", 9)) == [4, 5]


def test_index_of_a_million_results_takes_some_20_bytes_each() -> None:
    index = Index()
    index.begin_entry("1700000000123-4")
    index.extend([number % 256 for number in range(10_000)], range(10_000), None, succeeded=True)
    assert index.size <= 25 * 10_000


# ---- keys


def test_keys_are_found_by_a_part_the_very_key_last_and_before_it_what_begins_so() -> None:
    keys = KeyTexts()
    keys.extend(["user-1", "new user-1", "USER-12", "other"], 4)
    keys.extend(None, 2)
    keys.extend([None, "user-1", "two\nlines", None], 4)
    assert keys.find("User-1", 99) == [1, 2, 0, 7]
    assert keys.find("r-12", 99) == [2]
    assert keys.find("two lines", 99) == [8]
    assert keys.find("none", 99) == []
    assert len(keys) == 10
    assert [row for row in range(4) if holds(["user-1", "new user-1", "USER-12", None][row], "uSeR-12")] == [2]


def test_of_very_many_keys_the_very_key_is_found_all_the_same() -> None:
    keys = KeyTexts()
    keys.extend([f"user-{number}" for number in range(1000)], 1000)
    found = keys.find("user-99", 10)
    assert len(found) == 10
    assert found[-1] == 99


def test_keys_past_their_limit_are_not_taken_and_that_is_known() -> None:
    keys = KeyTexts(most_bytes=20)
    for number in range(9):
        keys.extend([f"key-{number}"], 1)
    assert len(keys) == 4
    assert keys.find("key-3", 9) == [3]
    assert keys.find("key-8", 9) == []
    assert keys.size < 40


def test_a_key_of_any_letters_is_found() -> None:
    keys = KeyTexts()
    keys.extend(["\ud800 \x00", "straße", "x" * 5000], 3)
    assert keys.find("\ud800", 9) == [0]
    assert keys.find("STRASSE", 9) == [1]
    assert keys.find("x" * 300, 9) == [2]


def test_digest_counts_what_its_index_has_no_room_for() -> None:
    known = Digest(100.0, Index(most=1))
    known.add_entry("1-0", facts_of(success(0), success(1), failure(2), failure(3)))
    assert known.count == 4
    assert known.counts["failure"] == 2
    [group] = known.groups()
    assert (group.count, len(group.rows)) == (2, 1)
