"""The chunks in which jobs travel.

Jobs that are alike but for their arguments, and for what each has of its own, travel as rows: `{"kinds": [...], "args":
a row for each job}`, where a kind tells `function`, `names` and `own` (`protocol.kinds`). So a no-op job takes 10 bytes
in place of 45, and all rows are checked and written at once. All others are objects with the fields of `JobSpec` that
are not at their default, in an array.

Jobs and rows are joined by a comma and a line break, which stands nowhere else, as JSON escapes line breaks: so a claim
cuts a chunk in two without reading it (splitting.lua).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from protocol.errors import ProtocolError, explain
from protocol.jobs import JobSpec
from protocol.kinds import Called, Kind, Shape, read_kinds, shapes_of, write_calls, write_kinds, write_rows

LARGEST_CHUNK = 1000
"""Jobs in one chunk at most; scripts refuse one with more."""

# As many as a worker takes on of jobs that end at once; of slower ones it cuts off what it has room for (claim.lua).
# 10,000 no-op jobs went 1.2 to 2 times as fast as in two chunks for each slot, which was the rule before.
LARGEST_AMONG_WORKERS = 256
# A chunk is cut at this size too, so that jobs with large arguments do not travel in lumps that block Redis.
CHUNK_BYTES = 1 << 18

# Jobs of more kinds than that travel as objects.
_MOST_KINDS = 16

_KINDS = b'{"kinds":'
_ROWS = b',"args":'
_JOINT = b",\n"

_jobs: TypeAdapter[tuple[JobSpec[Any], ...]] = TypeAdapter(tuple[JobSpec[Any], ...])
_rows: TypeAdapter[list[list[Any]]] = TypeAdapter(list[list[Any]])


class Calls(Sequence[JobSpec[Any]]):
    """Jobs that travel as rows; each is made when it is asked for.

    Args:
        kinds: Of what kinds they are.
        data: Their rows, a JSON array of arrays.

    Raises:
        ValueError: If these bytes are no rows of these kinds.
    """

    def __init__(self, kinds: Sequence[Kind], data: bytes) -> None:
        self.kinds = kinds
        self._data = data
        self._rows = _rows.validate_json(data)
        # Of each kind its jobs' places.
        self._places: list[Sequence[int]] = [range(len(self._rows))]
        if len(kinds) > 1:
            self._places = _sorted_by_kind(self._rows, len(kinds))
            for kind, places in zip(kinds, self._places, strict=True):
                kind.check([self._rows[place][1:] for place in places])
        else:
            kinds[0].check(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> JobSpec[Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[JobSpec[Any]]: ...
    def __getitem__(self, at: int | slice) -> JobSpec[Any] | Sequence[JobSpec[Any]]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        return self.kind_of(at).job(self._row(at))

    def bare_job(self, at: int) -> JobSpec[Any]:
        """Make a job without its arguments."""
        return self.kind_of(at).bare_job(self._row(at))

    def _row(self, at: int) -> list[Any]:
        row = self._rows[at]
        return row if len(self.kinds) == 1 else row[1:]

    def kind_of(self, at: int) -> Kind:
        """Tell of which kind a job is."""
        return self.kinds[0 if len(self.kinds) == 1 else self._rows[at][0]]

    @cached_property
    def calls(self) -> Called | None:
        """What each is to be called with; None where they must be looked at one by one."""
        try:
            return self._read_one_kind() if len(self.kinds) == 1 else self._read_kinds()
        except Exception:  # noqa: BLE001  # the validators of a job's own types may raise anything: one by one tells
            return None

    def _read_one_kind(self) -> Called | None:
        return self.kinds[0].read(self._data, len(self._rows[0]), is_numbered=False)

    def _read_kinds(self) -> Called | None:
        texts, found = _rows_of(self._data), dict[int, Any]()
        for kind, places in zip(self.kinds, self._places, strict=True):
            if not places:
                continue
            width = len(self._rows[places[0]])
            calls = kind.read(encode_jobs([texts[place] for place in places]), width, is_numbered=True)
            if calls is None:
                return None
            found.update(zip(places, zip(*calls, strict=True), strict=True))
        jobs, args, kwargs = zip(*[found[place] for place in range(len(self))], strict=True)
        return Called(list(jobs), list(args), list(kwargs))


def _sorted_by_kind(rows: Sequence[Sequence[Any]], count: int) -> list[Sequence[int]]:
    places: list[list[int]] = [[] for _ in range(count)]
    for place, row in enumerate(rows):
        if not row or type(row[0]) is not int or not 0 <= row[0] < count:
            raise ValueError(f"a row that is of none of the {count} kinds: {row[:1]}")
        places[row[0]].append(place)
    return list(places)


def _rows_of(data: bytes) -> list[bytes]:
    """Take rows apart that were joined by us."""
    return data[1:-1].split(_JOINT)


def encode_calls(function: str, arguments: list[tuple[Any, ...]]) -> bytes | None:
    """Write a chunk of jobs that differ in nothing but their positional arguments.

    Returns:
        None where that cannot be: they are for `encode_job`, one by one, which tells what is wrong with which.
    """
    try:
        written = write_calls(Shape(function, len(arguments[0])), arguments)
        return None if written is None else _chunk((written[0],), _joined(written[1], len(arguments)))
    except Exception:  # noqa: BLE001  # the validators of a job's own types may raise anything
        return None


def encode_alike(jobs: Sequence[JobSpec[Any]]) -> bytes | None:
    """Write a chunk of jobs of one kind or of a few, mixed in any order.

    Returns:
        None as `encode_calls`.
    """
    try:
        shapes = shapes_of(jobs)
        if shapes.count(shapes[0]) < len(shapes):
            return _encode_mixed(jobs, shapes)
        written = write_rows(Shape(*shapes[0]), jobs)
        return None if written is None else _chunk((written[0],), _joined(written[1], len(jobs)))
    except Exception:  # noqa: BLE001  # as above; or what is no JobSpec
        return None


def _encode_mixed(jobs: Sequence[JobSpec[Any]], shapes: Sequence[tuple[Any, ...]]) -> bytes | None:
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        places.setdefault(shape, []).append(place)
    if len(places) > _MOST_KINDS:
        return None
    kinds, texts = [], dict[int, bytes]()
    for number, (shape, some) in enumerate(places.items()):
        written = write_rows(Shape(*shape), [jobs[place] for place in some], number)
        if written is None:
            return None
        kinds.append(written[0])
        texts.update(zip(some, _rows_of(_joined(written[1], len(some))), strict=True))
    return _chunk(tuple(kinds), encode_jobs(texts[place] for place in range(len(jobs))))


def _chunk(kinds: tuple[Kind, ...], rows: bytes) -> bytes:
    return b"%b%b%b}" % (_head(kinds), _ROWS, rows)


@lru_cache(64)  # 2 us a chunk
def _head(kinds: tuple[Kind, ...]) -> bytes:
    return _KINDS + write_kinds(kinds)


def _joined(rows: bytes, count: int) -> bytes:
    """Put a line break between rows, which pydantic writes without one."""
    # Costs 2 us for 256 rows, where to write them one by one costs 100.
    if rows.count(b"],[") == count - 1:
        return rows.replace(b"],[", b"]" + _JOINT + b"[")
    # The same bytes stand in an argument, too.
    return encode_jobs(to_json(row) for row in from_json(rows))


def cut_chunk(data: bytes, limit_bytes: int, longest_job: int) -> list[tuple[int, bytes]] | None:
    """Cut a chunk that `encode_calls` or `encode_alike` has written into pieces that are no larger than this.

    Returns:
        Of each piece how many jobs it has; None where a job is longer than `longest_job`.
    """
    head, _, rows = data.partition(_ROWS)
    pieces: list[list[bytes]] = [[]]
    size = 0
    for row in _rows_of(rows[:-1]):
        if len(row) > longest_job:
            return None
        if pieces[-1] and size + len(row) > limit_bytes:
            pieces.append([])
            size = 0
        pieces[-1].append(row)
        size += len(row) + len(_JOINT)
    return [(len(piece), b"%b%b%b}" % (head, _ROWS, encode_jobs(piece))) for piece in pieces]


def drop_jobs(data: bytes, count: int) -> bytes:
    """Drop jobs from the front of what `encode_calls` or `encode_alike` has written."""
    head, _, rows = data.partition(_ROWS)
    return b"%b%b%b}" % (head, _ROWS, encode_jobs(_rows_of(rows[:-1])[count:]))


def encode_jobs(jobs: Iterable[bytes]) -> bytes:
    """Write a chunk of jobs that were encoded one by one."""
    return b"[%b]" % _JOINT.join(jobs)


def decode_chunk(first: int, data: bytes, key: str) -> Sequence[JobSpec[Any]]:
    """Read a chunk's jobs; there is at least one.

    Args:
        first: Index of its first job.
        data: The bytes.
        key: Where they were found, for messages.

    Raises:
        ProtocolError: If these bytes are no chunk; names `key`.
    """
    try:
        jobs = _decode(data)
    except (ValidationError, ValueError) as error:
        what = explain(error, 1) if isinstance(error, ValidationError) else str(error)
        raise ProtocolError(key, f"field {first}: {what}") from None
    if not jobs:
        raise ProtocolError(key, f"field {first}: no jobs")
    return jobs


def decode_job(first: int, index: int, data: bytes, key: str) -> Sequence[JobSpec[Any]]:
    """Read a single job of a chunk as a chunk of its own, and none of the others, of which there may be 1,000.

    Args:
        first: Index of the chunk's first job.
        index: The job's.
        data: The bytes.
        key: Where they were found, for messages.

    Returns:
        That job; none if the chunk ends before it.

    Raises:
        ProtocolError: If these bytes are no chunk; names `key`.
    """
    head, joint, _ = data.partition(_ROWS) if data.startswith(b"{") else (b"", b"", b"")
    opening, closing = head + joint + b"[", b"]}" if joint else b"]"
    texts = data.split(_JOINT)
    at = index - first
    if at < len(texts) and data.startswith(opening) and data.endswith(closing):
        begin, end = len(opening) if at == 0 else 0, -len(closing) if at == len(texts) - 1 else None
        found = decode_chunk(first, opening + texts[at][begin:end] + closing, key)
        if len(found) == 1:
            return found
    # Others than we may join them without a line break.
    return decode_chunk(first, data, key)[at : at + 1]


@lru_cache(64)  # all chunks of a batch begin alike
def _read_head(head: bytes) -> tuple[Kind, ...]:
    if not head.startswith(_KINDS):
        raise ValueError("neither jobs nor kinds of them")
    return read_kinds(head[len(_KINDS) :])


def _decode(data: bytes) -> Sequence[JobSpec[Any]]:
    if not data.startswith(b"{"):
        return _jobs.validate_json(data)
    # Inside a JSON string there is no bare quotation mark, so this stands nowhere but where we have put it.
    head, _, rows = data.partition(_ROWS)
    return Calls(_read_head(head), rows[:-1])
