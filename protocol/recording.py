"""Calls of the `record` script: what is to be kept as jobs' results.

What a group's results have in common stands in it once. Successes of first attempts, as most are, differ in a few
columns only: index, start, duration, value, and where they have their own, key and function; 25 bytes a no-op job in
place of 95. All others are rows, a JSON object each. `protocol.entries` reads both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from protocol import keys

if TYPE_CHECKING:  # each process of a job imports this, and none of them speaks to Redis
    from protocol.connection import Call


OverChunk = tuple[str, int, str, str]


class Over(NamedTuple):
    """Chunks that are over once some results are written, all of one batch: they are let go of in the same step.

    Args:
        queue: Where they wait.
        worker: Who holds them.
        chunks: Of each its id, first index, `succeeded` or `ended` (see release.lua), and the `place` that its payload
            names, if all its results are among these; else "".
    """

    queue: str
    worker: str
    chunks: Sequence[OverChunk]


Success = tuple[int, str, bytes, float, float, str | None, str | None]
"""Index, "success", the value as JSON, when the job started and ended, on one clock, s, its key, and what it called.

The last is None where that is the group's own.
"""

Row = tuple[int, str, bytes] | Success
"""A job's index, its result's status, and what the result adds to its group's common fields, as JSON.

For a success of a first attempt that is just the value; behind it stands what else `Success` tells.
"""


def encode_common(function: str, worker: str | None, enqueued_at: float | None, **more: Any) -> bytes:
    """Write what all results of a group share; `more` are fields of their kind."""
    return to_json({"function": function, "worker": worker, "enqueued_at": enqueued_at, **more})


def encode_row(**fields: Any) -> bytes:
    """Write what one result adds to its group's common fields."""
    return to_json(fields, inf_nan_mode="constants")


def record_rows(
    batch_id: str,
    common: bytes,
    indexes: Sequence[int],
    statuses: Sequence[str],
    rows: Sequence[bytes],
    *,
    was_taken: bool = True,
    over: Over | None = None,
) -> Call:
    """Record results of any kind.

    Args:
        batch_id: Their batch.
        common: What they share, from `encode_common`.
        indexes: Their jobs.
        statuses: Their statuses, or the one that all have.
        rows: What each adds, from `encode_row`.
        was_taken: Whether a worker had them.
        over: The chunks that are over with them.
    """
    # Three long arguments in place of three a job: packing those was a quarter of a worker's time.
    columns = {"rows": b",\n".join(rows)}
    return _call(batch_id, common, indexes, ",".join(statuses), columns, over, was_taken=was_taken)


def record_successes(
    batch_id: str, common: bytes, found: Sequence[Success], ahead: float, over: Over | None = None
) -> Call:
    """Record successes.

    Args:
        batch_id: Their batch.
        common: What they share, from `encode_common`.
        found: What each adds.
        ahead: How far Redis' clock is ahead of the one that they were timed by, s.
        over: The chunks that are over with them.
    """
    indexes, _, values, starts, ends, names, functions = zip(*found, strict=True)
    zero = starts[0]
    at = b'%b,"at":%d}' % (common[:-1], round((zero + ahead) * 1e6))
    columns = {
        "started": to_json([int((start - zero) * 1e6) for start in starts])[1:-1],
        "took": to_json([int((end - start) * 1e6) for start, end in zip(starts, ends, strict=True)])[1:-1],
        "values": b",\n".join(values),
    }
    for column, texts in (("keys", names), ("functions", functions)):
        if texts.count(None) < len(texts):
            columns[column] = _encode_texts(texts)
    return _call(batch_id, at, indexes, "success", columns, over, was_taken=True)


def _encode_texts(texts: Sequence[str | None]) -> bytes:
    # 0.1 us a text, where to write them one by one costs 0.4. Inside a JSON string there is no bare quotation mark.
    if None not in texts:
        return to_json(texts)[1:-1].replace(b'","', b'",\n"')
    return b",\n".join(map(to_json, texts))


def _call(
    batch_id: str,
    common: bytes,
    indexes: Sequence[int],
    statuses: str,
    columns: Mapping[str, bytes],
    over: Over | None,
    *,
    was_taken: bool,
) -> Call:
    names = [keys.batch(batch_id), keys.done(batch_id), keys.results(batch_id)]
    lifetime = int(keys.OPEN_BATCH_LIFETIME * 1000)
    args = [common, lifetime, encode_indexes(indexes), statuses, int(not was_taken)]
    if over is None:
        args += ["", 0]
    else:
        names.append(keys.queue(over.queue))
        args += [over.worker, len(over.chunks), *chain.from_iterable(over.chunks)]
    return "record", names, [*args, *chain.from_iterable(columns.items())]


def encode_indexes(indexes: Sequence[int]) -> str:
    """Write indexes, those that follow each other as a range: `0-97,100`."""
    first, last = indexes[0], indexes[-1]
    if len(indexes) == last - first + 1 and list(indexes) == list(range(first, last + 1)):
        return str(first) if first == last else f"{first}-{last}"
    return ",".join(_ranges(indexes))


def _ranges(indexes: Sequence[int]) -> list[str]:
    written: list[str] = []
    first = last = indexes[0]
    for index in (*indexes[1:], -1):
        if index == last + 1:
            last = index
            continue
        written.append(str(first) if first == last else f"{first}-{last}")
        first = last = index
    return written


def decode_indexes(text: str) -> list[int]:
    """Read what `encode_indexes` has written.

    Raises:
        ValueError: If it is anything else.
    """
    found: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
