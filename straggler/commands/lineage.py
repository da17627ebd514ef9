"""`collect --lineage`: a batch and all its redrives as one file of results."""

from __future__ import annotations

from producer.pictures.summary import Tally, facts, summarize
from straggler.commands.logs import set_up_logs
from straggler.commands.notes import notes
from straggler.commands.output import Output, print_json
from straggler.commands.place import Place
from straggler.commands.process import SOME_DID_NOT_SUCCEED, SUCCEEDED, run_loop
from workers.loading import load_all


def collect_lineage(place: Place, batch_id: str, *, out: Output, jobs: str | None) -> int:
    """Wait for all batches of a lineage, and write the latest result of each job, in order of submission."""
    set_up_logs(place.settings, live=True)
    load_all(jobs or place.settings.jobs)
    return run_loop(_collect(place, batch_id, out))


async def _collect(place: Place, batch_id: str, out: Output) -> int:
    tally = Tally()
    async with place.producer() as producer:
        batch = await producer.attach(batch_id)  # before a file is made for one that is not there
        results = await batch.results(lineage=True)
        began = (await batch.status()).created_at
    with out.export() as export:
        if export is not None:
            export.begin()
        for result in results:
            tally.add(result)
            if export is not None:
                export.write(result)
        if export is not None:
            export.complete()
    elapsed = max((result.finished_at or began for result in results), default=began) - began
    if out.as_json:
        print_json({"batch": batch_id, **facts(tally, tally.total, elapsed)})
    elif tally.total:
        notes.print(summarize(tally, tally.total, elapsed))
    return SUCCEEDED if tally.counts["success"] == tally.total else SOME_DID_NOT_SUCCEED
