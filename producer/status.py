"""A batch's header: its status in one step, however large the batch is, and the options that it was submitted with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from producer.spoilt import naming
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.connection import ArqRedis
from protocol.errors import BatchNotFoundError, ProtocolError, explain

Header = Mapping[bytes, bytes]


async def read_status(redis: ArqRedis, batch_id: str) -> BatchStatus:
    """Read how far a batch is.

    Raises:
        BatchNotFoundError: If there is none.
        ProtocolError: If its header is not ours.
    """
    return parse_status(batch_id, await read_header(redis, batch_id))


async def read_header(redis: ArqRedis, batch_id: str) -> Header:
    """Read a batch's header.

    Raises:
        BatchNotFoundError: If there is none.
        ProtocolError: If another type of value stands there.
    """
    key = keys.batch(batch_id)
    with naming(key):
        header: Header = await redis.hgetall(key)  # type: ignore[misc]  # typed for both clients
    if not header:
        raise BatchNotFoundError(batch_id)
    return header


def parse_status(batch_id: str, header: Header) -> BatchStatus:
    """Read the status in a header.

    Raises:
        ProtocolError: If it is not ours.
    """
    key = keys.batch(batch_id)
    try:
        fields = {name.decode(): value.decode() for name, value in header.items()}
        options = from_json(fields.get("options", "{}"))
        about = {"batch_id": batch_id, "name": options.get("name"), "metadata": options.get("metadata", {})}
        counted: dict[str, Any] = {n: fields[n] for n in fields if n in BatchStatus.model_fields and n not in about}
        return BatchStatus(**about, **counted)
    except ValidationError as error:
        raise ProtocolError(key, explain(error, 1)) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ProtocolError(key, f"no header of a batch ({error})") from None


def parse_options(batch_id: str, header: Header) -> BatchOptions:
    """Read the options in a header.

    Raises:
        ProtocolError: If they are not ours.
    """
    try:
        return BatchOptions.model_validate_json(header.get(b"options", b""))
    except ValidationError as error:
        raise ProtocolError(keys.batch(batch_id), f"field options: {explain(error, 1)}") from None
