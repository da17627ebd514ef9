"""What a job costs is counted, not timed: calls of functions a job, which no busy machine makes more of."""

from __future__ import annotations

import pytest

from benchmarks.micro import calls, stages

# A tenth more than was counted on 3.11 and 3.13, or a fifth. What a chunk's jobs no longer share costs far more.
MOST = {
    "producer: cut and write": 2.5,
    "worker: read a chunk": 3.4,
    "worker: a chunk of no-ops": 48,
    "worker: a chunk of pauses": 145,
    "worker: write results": 0.1,
    "producer: read results": 2.4,
}


def test_each_stage_is_counted() -> None:
    assert set(MOST) == set(stages())


@pytest.mark.parametrize("stage", MOST)
def test_a_job_takes_no_more_calls_than_it_did(stage: str) -> None:
    # How many jobs share a turn of the loop hangs on the clock, a little.
    assert min(calls(stages()[stage]) for _ in range(3)) <= MOST[stage]
