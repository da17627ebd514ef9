"""Arguments and values survive the trip through JSON, or are refused in one clear line."""

from __future__ import annotations

import enum
import itertools
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator
from pydantic_core import from_json

from protocol.errors import ArgumentsError
from protocol.signatures import Signature


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    label: str = ""


class Address(BaseModel):
    street: str
    since: date


class User(BaseModel):
    id: int
    addresses: list[Address]
    born: datetime | None = None


def everything(
    blob: bytes,
    moment: datetime,
    span: timedelta,
    amount: Decimal,
    path: Path,
    unique: uuid.UUID,
    colour: Colour,
    numbers: set[int],
    point: Point,
    user: User,
    share: float,
    blobs: dict[str, list[bytes]],
    pair: tuple[int, str],
) -> None: ...


users = st.builds(
    User,
    id=st.integers(),
    addresses=st.lists(st.builds(Address, street=st.text(), since=st.dates()), max_size=3),
    born=st.none() | st.datetimes(),
)
values = st.fixed_dictionaries(
    {
        "blob": st.binary(),
        "moment": st.datetimes(timezones=st.none() | st.just(UTC)),
        "span": st.timedeltas(timedelta(-999_999), timedelta(999_999)),
        "amount": st.decimals(allow_nan=False, allow_infinity=False),
        "path": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(Path),
        "unique": st.uuids(),
        "colour": st.sampled_from(Colour),
        "numbers": st.sets(st.integers()),
        "point": st.builds(Point, st.floats(allow_nan=False), st.floats(allow_nan=False), st.text()),
        "user": users,
        "share": st.floats(allow_nan=False),
        "blobs": st.dictionaries(st.text(), st.lists(st.binary())),
        "pair": st.tuples(st.integers(), st.text()),
    }
)


def trip(signature: Signature, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Send arguments over the wire: through bytes of JSON and back."""
    sent = from_json(b"{%b}" % signature.encode_arguments(args, kwargs))
    return signature.decode_arguments(sent.get("args", ()), sent.get("kwargs", {}))


def value_trip(annotation: Any, value: Any) -> Any:
    def function() -> None: ...

    function.__annotations__ = {"return": annotation}
    signature = Signature("function", function)
    return signature.decode_value(from_json(signature.encode_value(value))["value"])


@given(values)
def test_annotated_arguments_survive_the_trip(arguments: dict[str, Any]) -> None:
    args, kwargs = trip(Signature("everything", everything), **arguments)
    assert (args, kwargs) == ((), arguments)


@given(values)
def test_annotated_values_survive_the_trip(value: dict[str, Any]) -> None:
    for name, annotation in Signature("everything", everything)._hints.items():
        if name != "return":
            assert value_trip(annotation, value[name]) == value[name]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_json_survives_without_any_annotation(value: Any) -> None:
    def function(value):  # type: ignore[no-untyped-def]  # the point
        pass

    assert trip(Signature("function", function), value) == ((), {"value": value})
    assert value_trip(Any, value) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_survives(value: float) -> None:
    assert value_trip(float, value) == value
    assert value_trip(Any, [value]) == [value]


def test_nan_survives() -> None:
    assert math.isnan(value_trip(float, math.nan))
    assert math.isnan(value_trip(list[float], [math.nan])[0])


def plain(a: int, b: int = 2) -> None: ...
def by_position(a: int, /, b: int) -> None: ...
def variadic(a: int, *rest: int, flag: bool = False, **more: str) -> None: ...
def by_name(*, a: int, b: bytes = b"") -> None: ...
def odd(json: int, model_config: int, _x: int, copy: int, self: int, schema: int, __y: int) -> None: ...
def greedy(*args: bytes, **kwargs: bytes) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (plain, (1,), {}, ((), {"a": 1})),
        (plain, (1,), {"b": 3}, ((), {"a": 1, "b": 3})),
        (plain, ("1",), {}, ((), {"a": 1})),
        (by_position, (1, 2), {}, ((1, 2), {})),
        (by_position, (1,), {"b": 2}, ((1, 2), {})),
        (variadic, (1, 2, 3), {"flag": True, "x": "y"}, ((1, 2, 3), {"flag": True, "x": "y"})),
        (variadic, (1,), {}, ((1,), {})),
        (by_name, (), {"a": 1, "b": b"\xff\x00"}, ((), {"a": 1, "b": b"\xff\x00"})),
        (greedy, (b"\xff", b""), {"key": b"\xfe"}, ((b"\xff", b""), {"key": b"\xfe"})),
        (
            odd,
            (1, 2, 3, 4, 5, 6, 7),
            {},
            ((), {"json": 1, "model_config": 2, "_x": 3, "copy": 4, "self": 5, "schema": 6, "__y": 7}),
        ),
    ],
)
def test_every_kind_of_parameter_arrives(function: Any, args: Any, kwargs: Any, expected: Any) -> None:
    assert trip(Signature("function", function), *args, **kwargs) == expected


class _Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class _Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    number: int = Field(default_factory=itertools.count().__next__)


_Pet = Annotated[_Cat | _Dog, Field(discriminator="kind")]


@pytest.mark.parametrize("is_by_position", [True, False])
def test_defaults_inside_arguments_travel_with_them(is_by_position: bool) -> None:  # a parameter
    def feed(pet: _Pet, often: int = 1, /) -> None: ...
    def feed_by_name(pet: _Pet, often: int = 1) -> None: ...

    signature, dog = Signature("feed", feed if is_by_position else feed_by_name), _Dog()
    call = from_json(b"{%b}" % signature.encode_arguments((dog,), {}))
    args, kwargs = signature.decode_arguments(call.get("args", ()), call["kwargs"])
    assert (args, kwargs) == (((dog,), {}) if is_by_position else ((), {"pet": dog}))


def test_a_default_stays_the_functions_own() -> None:
    sentinel = object()

    def function(a: int, b: Any = sentinel) -> None: ...

    assert trip(Signature("function", function), 1) == ((), {"a": 1}), "a default need not be JSON, it does not travel"


class Strict(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        raise ValueError("two\nlines")


def takes_strict(user: Strict) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (plain, ("x",), {}, "f: a: Input should be a valid integer, unable to parse string as an integer, got 'x'"),
        (plain, (), {}, "f: a: Field required"),
        (plain, (1,), {"c": 3}, "f: c: Extra inputs are not permitted, got 3"),
        (plain, (1, 2, 3), {}, "f takes at most 2 positional arguments, got 3"),
        (plain, (1,), {"a": 1}, "f got two values for 'a'"),
        (by_position, (), {"a": 1, "b": 2}, "f: .*positional.only.*"),
        (by_position, (1, 2, 3), {}, "f: too many positional arguments"),
        (variadic, (1, "x"), {}, "f: rest.0: Input should be a valid integer, .*, got 'x'"),
        (takes_strict, ({"name": "x"},), {}, "f: user.name: two lines, got 'x'"),
        (plain, ("y" * 1000,), {}, "f: a: .*, got 'y{50,80}…"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(function: Any, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ArgumentsError, match=f"^{message}$") as raised:
        Signature("f", function).encode_arguments(args, kwargs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [object(), {1: object()}, "\ud800", [b"\xff", "\udfff"], {"\ud800": 1}])
def test_what_cannot_be_json_is_refused(value: Any) -> None:
    def function(value: Any) -> None: ...

    def by_position(value: Any, /) -> None: ...

    for one in (function, by_position):
        with pytest.raises(ArgumentsError, match="f: the arguments cannot be written as JSON"):
            Signature("f", one).encode_arguments((value,), {})


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("function", [lambda value: None, lambda *value: None])
def test_a_circle_is_refused(function: Any) -> None:
    with pytest.raises(ArgumentsError):
        Signature("f", function).encode_arguments((circle(),), {})


def test_the_worker_refuses_what_does_not_fit() -> None:
    with pytest.raises(ArgumentsError, match="f: a: Input should be a valid integer"):
        Signature("f", plain).decode_arguments((), {"a": "x"})


def test_annotations_may_name_what_is_defined_later() -> None:
    def function(later: Later) -> Later: ...  # type: ignore[name-defined]  # noqa: F821

    signature = Signature("f", function)
    function.__globals__["Later"] = int
    try:
        assert trip(signature, "3") == ((), {"later": 3})
    finally:
        del function.__globals__["Later"]


def test_annotations_that_cannot_be_read_are_said_so() -> None:
    def function(missing: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ArgumentsError, match="annotations of f cannot be read: name 'Missing' is not defined"):
        Signature("f", function).encode_arguments((1,), {})


def test_types_that_pydantic_does_not_know_are_said_so() -> None:
    class Unknown: ...

    def function(value: int) -> None: ...

    function.__annotations__["value"] = Unknown
    with pytest.raises(ArgumentsError, match="annotations of f name a type that pydantic cannot check"):
        Signature("f", function).encode_arguments((Unknown(),), {})


@pytest.mark.parametrize("annotation", [Any, None, bool, int, str, dict, list])
def test_plain_json_needs_no_turning_back(annotation: Any) -> None:
    def function() -> None: ...

    function.__annotations__["return"] = annotation
    assert Signature("f", function).returns_plain_json


@pytest.mark.parametrize("annotation", [bytes, datetime, list[bytes], User, float, tuple[int, int], Literal["a"]])
def test_other_types_do(annotation: Any) -> None:
    def function() -> None: ...

    function.__annotations__["return"] = annotation
    assert not Signature("f", function).returns_plain_json


class Aliased(BaseModel):
    length: int = Field(alias="Content-Length")


def test_a_returned_model_with_aliases_comes_back() -> None:
    def measure() -> Aliased:
        return Aliased(**{"Content-Length": 3})

    signature = Signature("measure", measure)
    encoded = from_json(signature.encode_value(measure()))
    assert encoded == {"value": {"Content-Length": 3}}
    assert signature.decode_value(encoded["value"]) == measure()
