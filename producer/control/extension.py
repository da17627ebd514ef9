"""Give a batch another deadline: later than the one it has, or one at all.

A deadline stands twice in the header: as the moment when it passes, and among the options, in seconds from the batch's
submission. Both are changed in one step, if nobody else has changed them meanwhile.
"""

from __future__ import annotations

from producer.spoilt import naming
from producer.status import parse_options, parse_status, read_header
from protocol import keys
from protocol.batches import BatchOptions, BatchStatus
from protocol.batches import options as make_options
from protocol.connection import Scripts
from protocol.errors import BatchEndedError, BatchLostError, BatchNotFoundError, OptionError


class Extension:
    """Extend a batch, once.

    Args:
        scripts: The scripts of its Redis.
        batch_id: Its id.
        deadline: Its new deadline, s from now.

    Raises:
        OptionError: If there can be no such deadline.
    """

    def __init__(self, scripts: Scripts, batch_id: str, deadline: float) -> None:
        if deadline is None:
            raise OptionError("extend(deadline=None): give seconds from now; a deadline cannot be taken away")
        make_options(deadline=deadline)
        self._scripts = scripts
        self._batch_id = batch_id
        self._seconds = deadline

    async def run(self) -> BatchOptions:
        """Extend; returns the batch's options as they are now.

        Raises:
            OptionError: If the batch has more time than that.
            BatchEndedError: If it is complete, was cancelled, or its deadline has passed.
            BatchLostError: If it is gone.
            ProtocolError: If its header is not ours.
        """
        moment = await self._moment()
        while True:
            try:
                header = await read_header(self._scripts.redis, self._batch_id)
            except BatchNotFoundError:
                raise BatchLostError(self._batch_id) from None
            status, options = parse_status(self._batch_id, header), parse_options(self._batch_id, header)
            self._refuse_to_shorten(status, moment)
            made = options.model_copy(update={"deadline": round(moment - status.created_at, 3)})
            text = made.model_dump_json(exclude_defaults=True)
            args = (header[b"options"], text, f"{moment:.6f}")
            with naming(keys.batch(self._batch_id)):
                outcome = await self._scripts.run("extend", (keys.batch(self._batch_id),), args)
            if outcome == 1:
                return made
            if outcome == -1:
                raise BatchLostError(self._batch_id)
            if outcome < 0:
                raise BatchEndedError(self._batch_id, _ENDED[outcome])

    async def _moment(self) -> float:
        seconds, microseconds = await self._scripts.redis.time()
        return float(seconds + microseconds / 1e6 + self._seconds)

    def _refuse_to_shorten(self, status: BatchStatus, moment: float) -> None:
        if status.deadline is None or status.complete or status.deadline <= moment:
            return
        left = status.deadline - (moment - self._seconds)
        raise OptionError(
            f"extend(deadline={self._seconds:g}) would shorten batch {self._batch_id!r}, which has {left:.3f} s left: "
            "give more seconds from now, or cancel it"
        )


_ENDED = {-2: "it is complete", -3: "its deadline has passed", -4: "it was cancelled"}
