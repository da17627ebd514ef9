"""docs/results.md: its example, as it stands there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.commands import straggler
from tests.conftest import ROOT, StartProcess
from tests.examples import blocks

pytestmark = pytest.mark.redis

PAGE = (ROOT / "docs" / "results.md").read_text()
HEAD = "from datetime import UTC, datetime\nfrom pydantic import BaseModel\nfrom straggler import job\n\n"
BODY = "\n    return Page(url=url, links=3, fetched=datetime(2026, 1, 1, tzinfo=UTC))"


def test_flat_model_becomes_columns(tmp_path: Path, redis_url: str, worker_process: StartProcess) -> None:
    [code] = blocks(["results"])
    (tmp_path / "jobs.py").write_text(HEAD + code.rstrip().removesuffix(" ...") + BODY)
    (tmp_path / "urls.txt").write_text("http://a\nhttp://b\n")
    worker_process(jobs=str(tmp_path / "jobs.py"))
    commands = [line.split("#")[0].split() for line in re.findall(r"^    (straggler .*)", PAGE, re.MULTILINE)]
    for _, *words in commands:
        assert straggler(*words, cwd=tmp_path, env={**os.environ, "STRAGGLER_REDIS_URL": redis_url}).returncode == 0
    assert [words[1] for words in commands] == ["submit", "collect", "collect"]
    rows = pyarrow.parquet.read_table(tmp_path / "pages.parquet").to_pylist()
    assert sorted((row["value.url"], row["value.links"]) for row in rows) == [("http://a", 3), ("http://b", 3)]
