"""Settings for arq's own worker: `arq workers.settings.WorkerSettings` runs our chunks too.

arq's command line has no place for ours, so this module reads `STRAGGLER_*` itself when arq imports it. arq's worker looks
for chunks every `poll_delay`; what it does with them is the same as in `straggler worker`.
"""

from __future__ import annotations

from protocol.settings import Settings
from workers import registry
from workers.crew import WorkerOptions
from workers.worker import ArqSettings

_settings = Settings.read()
for _module in filter(None, _settings.jobs.split(",")):
    registry.load(_module.strip())


class WorkerSettings(ArqSettings):
    """What arq's command line reads."""


for _name, _value in ArqSettings.of(_settings.redis_url, WorkerOptions.of(_settings)).items():
    setattr(WorkerSettings, _name, _value)
