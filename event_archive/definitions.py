"""Dagster's way in: loads the settings, configures the logs, builds. Nothing else belongs here."""

import sys

from event_archive.config.environment import PipelineSettings
from event_archive.defs.build import build_definitions
from event_archive.observability import logs

_settings = PipelineSettings.load()
logs.configure(
    as_json=_settings.log_as_json,
    verbose=_settings.log_as_json,
    stream=sys.stdout if _settings.log_as_json else sys.stderr,
)
defs = build_definitions(_settings)
