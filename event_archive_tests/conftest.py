"""Fixtures for every test."""

from hypothesis import HealthCheck, settings

# How long a draw takes says how busy the machine is.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# In the order in which they import one another, so that pytest rewrites the assertions of each.
pytest_plugins = [
    "event_archive_tests.fixtures.postgres",
    "event_archive_tests.fixtures.standby",
    "event_archive_tests.fixtures.settings",
    "event_archive_tests.fixtures.packaged",
    "event_archive_tests.fixtures.lakes",
    "event_archive_tests.fixtures.blobs",
    "event_archive_tests.fixtures.folders",
    "event_archive_tests.fixtures.connecting",
    "event_archive_tests.fixtures.pipeline",
    "event_archive_tests.fixtures.restoring",
    "event_archive_tests.fixtures.verifying",
    "event_archive_tests.fixtures.strangers",
    "event_archive_tests.fixtures.timescale",
    "event_archive_tests.fixtures.hypertable",
    "event_archive_tests.fixtures.installation",
    "event_archive_tests.fixtures.archived",
    "event_archive_tests.fixtures.scheduler",
    "event_archive_tests.fixtures.projects",
    "event_archive_tests.fixtures.reporting",
    "event_archive_tests.fixtures.datasets",
    "event_archive_tests.fixtures.datasets_file",
    "event_archive_tests.fixtures.two_datasets",
    "event_archive_tests.fixtures.api",
    "event_archive_tests.fixtures.ingestion",
    "event_archive_tests.fixtures.ingesting_runs",
    "event_archive_tests.fixtures.landing",
    "event_archive_tests.fixtures.landed_positions",
    "event_archive_tests.fixtures.log_files",
    "event_archive_tests.fixtures.buckets",
    "event_archive_tests.fixtures.places",
    "event_archive_tests.fixtures.valkey",
    "event_archive_tests.fixtures.streaming",
    "event_archive_tests.fixtures.webhook",
    "event_archive_tests.fixtures.pushgateway",
    "event_archive_tests.fixtures.doctor",
]
