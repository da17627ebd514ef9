"""A batch's status, read from its header in one step, however large the batch is."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import from_json

from protocol import keys
from protocol.batches import BatchStatus
from protocol.connection import ArqRedis
from protocol.errors import BatchNotFoundError, ProtocolError, explain


async def read_status(redis: ArqRedis, batch_id: str) -> BatchStatus:
    """Read a batch's header.

    Raises:
        BatchNotFoundError: If there is none.
        ProtocolError: If it is not ours.
    """
    key = keys.batch(batch_id)
    header = await redis.hgetall(key)  # type: ignore[misc]  # typed for both clients
    if not header:
        raise BatchNotFoundError(batch_id)
    try:
        fields = {name.decode(): value.decode() for name, value in header.items()}
        options = from_json(fields.get("options", "{}"))
        about = {"name": options.get("name"), "metadata": options.get("metadata", {})}
        return BatchStatus(
            batch_id=batch_id, **about, **{n: fields[n] for n in fields if n in BatchStatus.model_fields}
        )
    except ValidationError as error:
        raise ProtocolError(key, explain(error, 1)) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ProtocolError(key, f"no header of a batch ({error})") from None
