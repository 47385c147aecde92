"""Dagster's way in: loads the settings, configures the logs, builds. Nothing else belongs here."""

import sys

from event_archive.config.datasets import load_datasets
from event_archive.config.sources import ApiShape, LogsShape, StreamShape
from event_archive.defs.build import build_definitions
from event_archive.observability import logs

_datasets = load_datasets()
_as_json = _datasets[0].log_as_json
logs.configure(as_json=_as_json, verbose=_as_json, stream=sys.stdout if _as_json else sys.stderr)
defs = build_definitions(*_datasets, api=ApiShape.load(), logs=LogsShape.load(), stream=StreamShape.load())
