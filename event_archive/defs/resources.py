"""PostgreSQL and the lake as Dagster resources.

They hold no configuration of their own: what they reach is in the environment, read when it is needed. So no secret
ever enters Dagster's run configuration, its database or its UI, and definitions load where no secret is.
Not here: how services are made of settings (``config.services``).
"""

from contextlib import AbstractContextManager

import dagster as dg

from event_archive.config import services
from event_archive.config.environment import PipelineSettings
from event_archive.lake.protocol import Lake
from event_archive.postgres.session import Postgres


class PostgresResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A dataset's database: PG_CONNECTION_STRING, EXPORT_PG_CONNECTION_STRING and PG_AUTH, or variables of its own."""

    def primary(self, settings: PipelineSettings) -> Postgres:
        """The database that rows are deleted from."""
        return services.primary(settings.with_secrets())

    def replica(self, settings: PipelineSettings) -> Postgres | None:
        """The read replica for a day's first export, if there is one."""
        return services.replica(settings.with_secrets())


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lake: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_URL or ARCHIVE_LOCAL_PATH of the environment."""

    def open(self, settings: PipelineSettings) -> AbstractContextManager[Lake]:
        """The lake that files are written to and read back from, its connections closed at the end."""
        return services.lake(settings.with_secrets())


RESOURCES = {"event_archive_postgres": PostgresResource(), "event_archive_lake": LakeResource()}
"""By keys that nobody else has. Dagster merges definitions whose resources are the very same objects."""
