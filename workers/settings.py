"""Settings for arq's own worker: `arq workers.settings.WorkerSettings` runs our chunks too.

arq's command line has no place for ours, so this module reads `STRAGGLER_*` itself when arq imports it. arq's worker
looks for chunks every 0.5 s; what it does with them is the same as in `straggler worker`.
"""

from __future__ import annotations

from protocol.settings import Settings
from workers import loading
from workers.crew import WorkerOptions
from workers.worker import arq_settings

_settings = Settings.read()
loading.load_all(_settings.jobs)

WorkerSettings = arq_settings(_settings.redis_url, WorkerOptions.of(_settings))
