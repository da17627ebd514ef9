"""What a function takes and gives, read once from its annotations: values here, JSON on the wire.

Both sides use it: the producer to refuse bad parameters before anything is sent and to turn values back into the
declared type, the worker to check what arrived and what the function returned. Bytes travel as base64, at any depth but
inside a pydantic model, whose own `ser_json_bytes` and `val_json_bytes` rule there; what has no annotation travels as
plain JSON.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticUndefined, to_json

from protocol.columns import WIRE, Columns
from protocol.errors import ArgumentsError, explain
from protocol.own import COLUMNS

# Functions with parameters of these kinds cannot be called by name alone.
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_PLAIN: tuple[type, ...] = (int, str, bool, type(None))


class _Wire(BaseModel):
    model_config = WIRE


class Signature:
    """One function's parameters and return value.

    Args:
        name: The name that the job goes by, for messages.
        function: The function itself; its annotations are read at first use, so they may name what is defined later.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self._columns: dict[Any, Columns | None] = {}

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters by name."""
        return inspect.signature(self.function).parameters

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Give each argument its parameter's name; a missing or unknown name is left for `validate` to find.

        Raises:
            ArgumentsError: If there are too many arguments, or two for one parameter.
        """
        if self._needs_positions:
            return self._bind_by_position(args, kwargs)
        if not args:
            return dict(kwargs)
        if len(args) > len(self.positional):
            raise ArgumentsError(
                f"{self.name} takes at most {len(self.positional)} positional arguments, got {len(args)}"
            )
        bound = dict(zip(self.positional, args, strict=False))
        for name in kwargs:
            if name in bound:
                raise ArgumentsError(f"{self.name} got two values for {name!r}")
        return {**bound, **kwargs}

    def encode_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Validate arguments and write them as members of a JSON object: `"kwargs":{...}`, by name where it can be.

        Raises:
            ArgumentsError: If they do not fit the parameters, or cannot be JSON.
        """
        try:
            model = self._arguments.__pydantic_validator__.validate_python(self.bind(args, kwargs))
            # Not `exclude_unset`, which would leave out the defaults inside the arguments, too: what tells the types of
            # a union apart, or what a factory has made.
            absent = self._arguments.model_fields.keys() - model.model_fields_set
            if self._needs_positions:
                bound = self._bound(model.model_dump(mode="json", exclude=absent))
                return b'"args":%b,"kwargs":%b' % (to_json(bound.args), to_json(bound.kwargs))
            return b'"kwargs":' + self._arguments.__pydantic_serializer__.to_json(model, by_alias=True, exclude=absent)
        except ValidationError as error:
            raise ArgumentsError(f"{self.name}: {explain(error)}") from None
        except ArgumentsError:
            raise
        except (ValueError, RecursionError) as error:  # no UTF-8, a circle, too deep, or a type that is no JSON
            raise ArgumentsError(f"{self.name}: the arguments cannot be written as JSON: {error}") from None

    def decode_arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn JSON values into what the function is to be called with: `function(*args, **kwargs)`.

        Raises:
            ArgumentsError: If they do not fit the parameters.
        """
        try:
            model = self._arguments.__pydantic_validator__.validate_json(to_json(self.bind(args, kwargs)))
        except ValidationError as error:
            raise ArgumentsError(f"{self.name}: {explain(error)}") from None
        values = model.__dict__
        arguments = {name: values[field] for name, field in self._fields.items() if field in model.model_fields_set}
        if not self._needs_positions:
            return (), arguments
        bound = self._bound(arguments)
        return bound.args, bound.kwargs

    def columns(self, count: int, names: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> Columns | None:
        """Return what writes and reads rows of calls, many at a time.

        Args:
            count: How many parameters they give by position.
            names: Those that they give by name.
            before: What stands in a row before its arguments (`protocol.own`).

        Returns:
            None where such calls must be looked at one by one, for what they need or for what is wrong with them.
        """
        asked = count, names, before
        if asked not in self._columns:
            self._columns[asked] = self._make_columns(*asked)
        return self._columns[asked]

    def encode_value(self, value: Any) -> bytes:
        """Check a return value against the annotation and write it as the JSON object `{"value": ...}`.

        Raises:
            ValidationError: If it does not fit.
            PydanticSerializationError: If it cannot be JSON.
        """
        if type(value) in self._exact:
            return b'{"value":%b}' % to_json(value)  # the same bytes in a sixth of the time
        model = self._returned.__pydantic_validator__.validate_python({"value": value})
        encoded: bytes = self._returned.__pydantic_serializer__.to_json(model, by_alias=True)
        return encoded

    def decode_value(self, value: Any) -> Any:
        """Turn a JSON value back into the declared return type.

        Raises:
            ValidationError: If it does not fit (the worker's function has another return type than ours).
        """
        return self._returned.__pydantic_validator__.validate_json(to_json({"value": value})).value

    def returned_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the return value, as it travels; empty if its type has none.

        Raises:
            ArgumentsError: If the annotations cannot be read.
        """
        try:
            schema: dict[str, Any] = self._returned.model_json_schema(mode="serialization")
        except PydanticInvalidForJsonSchema:
            return {}
        return {"$defs": schema.get("$defs", {}), **schema["properties"]["value"]}

    def decode_values(self, data: bytes) -> list[Any]:
        """Turn a JSON array of values back into the declared return type.

        Raises:
            As `decode_value`.
        """
        return self._values.validate_json(data)

    @cached_property
    def _values(self) -> TypeAdapter[list[Any]]:
        self._returned  # noqa: B018  # says what is wrong with an annotation that cannot be
        return TypeAdapter(list[self._hints.get("return", Any)], config=WIRE)  # type: ignore[arg-type, misc]  # made here

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except Exception as error:
            raise ArgumentsError(f"the annotations of {self.name} cannot be read: {error}") from error

    @cached_property
    def positional(self) -> tuple[str, ...]:
        """Names of the parameters that can be given by position."""
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        return tuple(name for name, parameter in self.parameters.items() if parameter.kind is not keyword_only)

    @cached_property
    def _needs_positions(self) -> bool:
        return any(parameter.kind in _BY_POSITION for parameter in self.parameters.values())

    @cached_property
    def _fields(self) -> dict[str, str]:
        # Parameters may have names that a pydantic model cannot (`json`, `_x`), so fields are numbered and aliased.
        return {name: f"p{number}" for number, name in enumerate(self.parameters)}

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            annotation: Any = self._hints.get(name, Any)
            default: Any = PydanticUndefined
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                annotation, default = tuple[annotation, ...], None
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                annotation, default = dict[str, annotation], None
            elif parameter.default is not inspect.Parameter.empty:
                default = None  # never read: only what was given is passed on, the function fills in its own default
            fields[self._fields[name]] = (annotation, Field(default, alias=name))
        return self._model("Arguments", fields)

    @cached_property
    def _returned(self) -> Any:
        return self._model("Returned", {"value": (self._hints.get("return", Any), ...)})

    @cached_property
    def returns_plain_json(self) -> bool:
        """Whether a value is the same before and after its trip, so that nothing needs turning back."""
        return self._hints.get("return", Any) in (Any, None, type(None), bool, int, str, dict, list, object)

    @cached_property
    def _exact(self) -> tuple[type, ...]:
        # Values of just these types fit as they are, and have one form in JSON.
        hint = self._hints.get("return", Any)
        if hint is Any or hint is object:
            return _PLAIN
        return tuple(kind for kind in _PLAIN if kind is hint or (hint is None and kind is type(None)))

    def _model(self, name: str, fields: dict[str, Any]) -> type[BaseModel]:
        try:
            return create_model(name, __base__=_Wire, **fields)
        except Exception as error:
            raise ArgumentsError(
                f"the annotations of {self.name} name a type that pydantic cannot check: {str(error).splitlines()[0]}"
            ) from error

    def _make_columns(self, count: int, names: tuple[str, ...], before: tuple[str, ...]) -> Columns | None:
        given = (*self.positional[:count], *names)
        needed = {name for name, parameter in self.parameters.items() if parameter.default is inspect.Parameter.empty}
        if self._needs_positions or count > len(self.positional) or len(set(given)) < len(given):
            return None
        if not needed <= set(given) <= self.parameters.keys():
            return None
        try:
            return Columns([*(COLUMNS[name] for name in before), *(self._hints.get(name, Any) for name in given)])
        except Exception:  # noqa: BLE001  # an annotation that cannot be checked, which the way one by one tells
            return None

    def _bind_by_position(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(inspect.signature(self.function).bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            raise ArgumentsError(f"{self.name}: {error}") from None

    def _bound(self, arguments: dict[str, Any]) -> inspect.BoundArguments:
        return inspect.BoundArguments(inspect.signature(self.function), arguments)


_known: dict[str, Signature] = {}


def learn(signature: Signature) -> None:
    """Make a function's signature known in this process, under its job's name."""
    _known[signature.name] = signature


def known(name: str) -> Signature | None:
    """Look up the signature of a job function that this process has at hand."""
    return _known.get(name)
