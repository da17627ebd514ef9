"""What those need who only count results: which jobs, when each ran, how it ended; of successes not their values.

A model takes longer to make than all that is counted of it, so successes, which most results are, come as columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from protocol.entries import Columns, read_columns, read_rows, reading
from protocol.results import Result

_MOST_JOBS = 1 << 32


class Successes(NamedTuple):
    """Successes of one function on one worker.

    Args:
        columns: Their jobs and times.
        offsets: Where each stands in its entry, from 0.
        keys: What their producer calls each; None: none has a key.
    """

    columns: Columns
    offsets: Sequence[int]
    keys: Sequence[str | None] | None


class Facts(NamedTuple):
    """The results of one entry: successes, and the others, each with where it stands in the entry."""

    successes: list[Successes]
    others: list[tuple[int, Result[Any]]]


def decode_facts(batch_id: str, entry: Mapping[bytes, bytes], key: str) -> Facts:
    """Read the results of one stream entry.

    Raises:
        ProtocolError: If these bytes are no results; names `key`.
    """
    with reading(key):
        if b"values" in entry:
            columns = read_columns(entry)
            _check(columns.indexes)
            return Facts(_by_function(columns), [])
        common, rows = from_json(entry[b"common"]), from_json(entry[b"rows"])
        alike, others = defaultdict[Any, list[tuple[int, Any]]](list), []
        for offset, row in enumerate(rows):
            if row["status"] == "success":
                alike[row.get("function"), row.get("worker")].append((offset, row))
            else:
                others.append((offset, row))
        _check([int(row["index"]) for row in rows])
        results = read_rows(batch_id, common, [row for _, row in others])
        successes = [_successes(common, found) for found in alike.values()]
        return Facts(successes, [(offset, result) for (offset, _), result in zip(others, results, strict=True)])


def _by_function(columns: Columns) -> list[Successes]:
    if columns.functions is None:
        return [Successes(columns, range(len(columns.indexes)), columns.keys)]
    offsets = defaultdict[str, list[int]](list)
    for offset, function in enumerate(columns.functions):
        offsets[function].append(offset)
    return [_pick(columns, function, some) for function, some in offsets.items()]


def _pick(columns: Columns, function: str, offsets: Sequence[int]) -> Successes:
    indexes, started, took = (
        [column[offset] for offset in offsets] for column in (columns.indexes, columns.started, columns.took)
    )
    keys = columns.keys and [columns.keys[offset] for offset in offsets]
    own = columns._replace(function=function, indexes=indexes, started=started, took=took, keys=keys, functions=None)
    return Successes(own, offsets, keys)


def _check(indexes: Sequence[int]) -> None:
    """Refuse what no job's index can be, before somebody counts it."""
    if not all(0 <= index < _MOST_JOBS for index in (min(indexes, default=0), max(indexes, default=0))):
        raise ValueError(f"jobs {min(indexes)} to {max(indexes)}")


def _successes(common: Mapping[str, Any], found: Sequence[tuple[int, Mapping[str, Any]]]) -> Successes:
    first = {**common, **found[0][1]}
    zero = float(first["started_at"])
    worker, enqueued_at = first.get("worker"), first.get("enqueued_at")
    columns = Columns(
        str(first["function"]),
        None if worker is None else str(worker),
        None if enqueued_at is None else float(enqueued_at),
        round(zero * 1e6),
        [int(row["index"]) for _, row in found],
        [round((row["started_at"] - zero) * 1e6) for _, row in found],
        [round((row["finished_at"] - row["started_at"]) * 1e6) for _, row in found],
    )
    return Successes(columns, [offset for offset, _ in found], [_text(row.get("key")) for _, row in found])


def _text(key: object) -> str | None:
    return None if key is None else str(key)
