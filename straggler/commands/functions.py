"""The function that a command names: `jobs.py:fetch`, `package.jobs:fetch`, or a job's name such as `http.fetch`."""

from __future__ import annotations

import inspect

from protocol.errors import UnknownFunctionError
from workers import loading, registry
from workers.registry import Job


def find_function(reference: str, *, plain_too: bool = False) -> str:
    """Load what a reference names, so that this process knows the job; returns the job's name.

    Args:
        reference: `file.py:name`, `module:name`, or the name of a job that is loaded or ready-made.
        plain_too: Whether to take a function without `@job`, too.

    Raises:
        InputError: If there is no such module, or its import fails.
        UnknownFunctionError: If it has no such job.
    """
    module_name, colon, name = reference.rpartition(":")
    if not colon:
        if reference.endswith(".py"):
            raise UnknownFunctionError(f"{reference!r} names no job: put its name behind, as in {reference}:fetch")
        return registry.find(reference).name
    module = loading.load(module_name)
    found = getattr(module, name, None)
    if isinstance(found, Job):
        return found.name
    if plain_too and inspect.isfunction(found):
        return registry.job(found).name
    if found is not None:
        raise UnknownFunctionError(f"{name!r} in {module_name} is no job: put @job (from straggler) above its def")
    jobs = sorted(job for job, made in vars(module).items() if isinstance(made, Job))
    raise UnknownFunctionError(f"{module_name} has no {name!r}; its jobs are {', '.join(jobs) or 'none'}")
