"""Tests: unit without I/O, integration on the real services, end to end through Dagster."""
