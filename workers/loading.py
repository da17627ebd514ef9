"""Import modules and files, so that their jobs are known."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType

from protocol.errors import InputError
from workers import registry

logger = logging.getLogger(__name__)


def load(module: str) -> ModuleType:
    """Import a module (`jobs`, `package.jobs`) or a file (`path/jobs.py`), so that its jobs are known.

    Raises:
        InputError: If there is none, its import fails, or another module has the file's name.
    """
    path = Path(module)
    is_file = module.endswith(".py")
    if is_file and not path.is_file():
        raise InputError(f"no file {module!r} here ({Path.cwd()})")
    home = str(path.parent.resolve()) if is_file else str(Path.cwd())
    if home not in sys.path:
        sys.path.insert(0, home)
    try:
        imported = importlib.import_module(path.stem if is_file else module)
    except (Exception, SystemExit) as error:
        raise InputError(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(imported, "__file__", None)
    if is_file and (found is None or Path(found).resolve() != path.resolve()):
        raise InputError(
            f"{module} cannot be imported, as Python has another module named {path.stem!r} ({found or 'built in'}): "
            "rename the file"
        )
    return imported


def load_all(modules: str) -> None:
    """Import several modules or files, their names separated by commas; one that brings no job is warned of.

    Raises:
        InputError: If there is no such module, or its import fails.
    """
    for module in modules.split(","):
        if module.strip():
            _load_jobs(module.strip())


def _load_jobs(module: str) -> None:
    known = registry.names()
    imported = load(module)
    # It may bring others' jobs, and those may be known already.
    if registry.names() == known and not any(type(value) is registry.Job for value in vars(imported).values()):
        logger.warning(
            "%s has no jobs: put @job (from straggler import job) above its functions", module,
            extra={"event": "jobs.none"},
        )  # fmt: skip
