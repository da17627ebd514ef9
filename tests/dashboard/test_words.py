"""Numbers, times and values as people read them; how fast a batch goes; which jobs hold it up."""

from __future__ import annotations

from typing import Any

import pytest
from markupsafe import Markup

from dashboard import words
from dashboard.digest import Digest
from dashboard.pace import Paces
from dashboard.rendering import render
from dashboard.stragglers import stragglers
from dashboard.table import details
from protocol.running import RunningJob
from tests.dashboard.results import cancelled, facts_of, failure, lost, success, timeout
from tests.dashboard.test_drawings import status


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (words.number(1234567), "1,234,567"), (words.number(None), words.NONE),
        (words.duration(0.000012), "12 µs"), (words.duration(None), words.NONE), (words.duration(-1.0), "0 ms"),
        (words.brief(59), "59 s"), (words.brief(7300), "2 h"), (words.brief(None), words.NONE),
        (words.share(1, 10**6), "0.1 %"), (words.share(999_999, 10**6), "99.9 %"), (words.share(5, 5), "100 %"),
        (words.share(0, 5), "0 %"), (words.share(0, 0), words.NONE),
        (words.rate(1234.4), "1,234/s"), (words.rate(0.5), "0.5/s"), (words.rate(None), words.NONE),
        (words.size(85 << 20), "85 MiB"), (words.size(12), "12 B"), (words.size(None), words.NONE),
        (words.moment(0.25), "1970-01-01 00:00:00.250 UTC"), (words.moment(None), words.NONE),
        (words.iso(0.25), "1970-01-01T00:00:00.250+00:00"),
        (words.cut("abcdef", 3), "abc… (3 more characters)"), (words.cut("abc", 3), "abc"),
        (words.line("one\ntwo"), "one…"), (words.line("x" * 9, 4), "xxxx…"),
        (words.state(status(finished_at=1.0)), "done"), (words.state(status()), "in progress"),
        (words.state(status(closed=False)), "open"),
    ],
)  # fmt: skip
def test_words(made: str, text: str) -> None:
    assert made == text


def test_what_is_named_like_a_secret_is_hidden_at_any_depth() -> None:
    shown = words.value({"headers": [{"Authorization": "Bearer x"}], "api_key": 1, "user": "a", "Password": None})
    assert "Bearer" not in shown
    assert shown.count("•••") == 3
    assert '"user": "a"' in shown
    assert "hunter2" not in words.value(["postgres://bob:hunter2@db/x"])
    assert "hunter2" not in words.glimpse({"a": {"url": "redis://:hunter2@host", "token": "hunter2"}})
    assert "hunter2" not in words.glimpse("redis://:hunter2@host")


def test_glimpse_of_a_huge_value_is_short() -> None:
    huge: Any = [{"a": ["x" * 10_000] * 1000}] * 1000
    assert len(words.glimpse(huge)) <= 161
    assert words.glimpse({"a": [[[[1]]]]}) == '{"a":[[[]]]}'
    assert "object at" in words.glimpse(object())


def test_value_says_how_much_of_it_is_cut() -> None:
    assert words.value("x" * 30_000).endswith("more characters)")


def test_details_say_in_a_line_what_a_job_ended_with() -> None:
    assert details(success(value={"a": 1})) == '{"a":1}'
    assert details(success(value="text")) == "text"
    assert details(timeout()) == "after 3 s while running, cancelled"
    assert details(failure(message="no\nmore")) == "ValueError: no…"
    assert details(cancelled(reason="by hand")) == "by hand"
    assert details(lost()) == "the worker died"


# ---- pace


def test_pace_is_of_what_was_seen_lately() -> None:
    pace = Paces()
    pace.see(status(total=1000, success=100), 100.0)
    speed = pace.see(status(total=1000, success=200), 110.0)
    assert speed.rate == pytest.approx(10.0)
    assert speed.remaining == pytest.approx(80.0)
    assert pace.see(status(total=1000, success=200), 200.0) == (0.0, None)


def test_pace_of_a_batch_seen_for_the_first_time_is_that_of_its_life() -> None:
    speed = Paces().see(status(total=1000, success=100), 50.0)
    assert speed.rate == pytest.approx(2.0)


def test_pace_of_a_batch_that_is_done_is_that_of_its_life_and_nothing_remains() -> None:
    speed = Paces().see(status(total=100, success=100, finished_at=50.0), 1000.0)
    assert speed == (2.0, None)


def test_pace_of_a_batch_that_stands_still_tells_no_time_left() -> None:
    assert Paces().see(status(total=100), 50.0) == (0.0, None)
    assert Paces().see(status(total=100), 0.0) == (None, None)


def test_pace_remembers_a_bounded_number_of_batches() -> None:
    pace = Paces()
    for number in range(1100):
        pace.see(status(batch_id=f"b{number}", total=1), 1.0)
    assert len(pace._seen) == 1000


# ---- stragglers


def at_work(index: int, elapsed: float, **given: Any) -> RunningJob:
    about = {"function": "fetch", "started_at": 0.0, "limit": 10.0, **given}
    return RunningJob(batch_id="b", index=index, elapsed=elapsed, **about)


def test_stragglers_are_those_furthest_past_what_their_siblings_took() -> None:
    digest = Digest(100.0)
    digest.add_entry("1-0", facts_of(*(success(number, finished_at=101.5) for number in range(50))))
    digest.add_entry("2-0", facts_of(*(success(number, function="slow", finished_at=105.0) for number in range(50))))
    jobs = [at_work(1, 5.0, function="slow"), at_work(2, 3.0), at_work(3, 1.0), at_work(4, 2.0, function="new")]
    found = stragglers(jobs, digest)
    assert [one.job.index for one in found] == [2, 3, 1, 4]
    assert found[0].excess == pytest.approx(6.0, rel=0.02)
    assert found[0].used == pytest.approx(0.3)
    assert found[0].usual_share == pytest.approx(0.05, rel=0.02)
    assert found[3].usual is None
    assert found[3].usual_share is None


def test_a_straggler_past_its_limit_has_used_it_up() -> None:
    [one] = stragglers([at_work(1, 50.0)], Digest(0.0))
    assert one.used == 1.0
    assert stragglers([at_work(1, 1.0, limit=0.0)], Digest(0.0))[0].used == 1.0


# ---- letters that deceive


def test_letters_that_turn_a_line_around_or_are_not_seen_are_shown_as_missing() -> None:
    page = {"path": "/", "notices": [], "allows_actions": False, "session": None, "csrf": ""}
    html = render("message.html", title="t", text="a\u202eb\u2066c\x1b[31m\x00\td", **page)
    assert "a\ufffdb\ufffdc\ufffd[31m\ufffd\td" in html
    assert words.visible("長 é\n") == "長 é\n"
    assert words.visible(3) == 3
    assert words.visible(Markup("<b>\u202e</b>")) == "<b>\u202e</b>", (
        "what is drawn is drawn from what was made visible"
    )
