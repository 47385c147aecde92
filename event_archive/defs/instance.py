"""Dagster's instance. Here: where Dagster keeps its own records, for ``dagster.yaml``, which knows no conditions.

Not here: the instance's other settings, which stand in ``dagster.yaml``; opening the instance in a command, and what
its errors mean (``records``).

``storage: {custom: ...}`` in ``dagster.yaml`` cannot do this: a custom storage never learns the folder in which SQLite
would lie. ``instance_class`` supplies the defaults, so the instance's reference, which run workers are started with,
names Dagster's own storage classes. The password is in it as the name of its variable.
"""

import json
import os
from collections.abc import Mapping

from dagster import DagsterInstance

from event_archive.config.environment import InstanceSettings
from event_archive.defs.internals import ConfigurableClassData, InstanceRef

_POSTGRES_CLASSES = {
    "storage": "DagsterPostgresStorage",
    "run_storage": "PostgresRunStorage",
    "event_log_storage": "PostgresEventLogStorage",
    "schedule_storage": "PostgresScheduleStorage",
}


class ArchiveInstance(DagsterInstance):
    """PostgreSQL storage where ``DAGSTER_PG_HOST`` is set, compute logs in Azure where ``DAGSTER_LOGS_ACCOUNT`` is.

    Else files in the instance's folder.
    """

    @classmethod
    def config_schema(cls) -> Mapping[str, object]:
        """What ``dagster.yaml`` may hold besides Dagster's own keys: nothing. Dagster asks every instance class."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """The parts of an instance that ``dagster.yaml`` does not name.

        Args:
            base_dir: ``DAGSTER_HOME``, or the temporary folder that ``dagster dev`` makes without it.

        Raises:
            ConfigurationError: the ``DAGSTER_PG_`` variables contradict one another.
        """
        parts = dict(InstanceRef.config_defaults(base_dir))
        settings = InstanceSettings.load()
        if settings.dagster_logs_account:
            parts["compute_logs"] = ConfigurableClassData(
                "dagster_azure.blob.compute_log_manager", "AzureBlobComputeLogManager", _compute_logs(settings)
            )
        if not settings.dagster_pg_host:
            return parts
        # JSON is YAML, which is what Dagster reads this as.
        config = json.dumps({"postgres_db": _postgres_db(settings)})
        for part, class_name in _POSTGRES_CLASSES.items():
            parts[part] = ConfigurableClassData("dagster_postgres", class_name, config)
        return parts


def _compute_logs(settings: InstanceSettings) -> str:
    """What AzureBlobComputeLogManager takes; it signs in as DefaultAzureCredential does."""
    return json.dumps(
        {
            "storage_account": settings.dagster_logs_account,
            "container": settings.dagster_logs_container,
            "default_azure_credential": {},
        }
    )


def _postgres_db(settings: InstanceSettings) -> dict[str, object]:
    host = settings.dagster_pg_host or ""
    is_socket_folder = host.startswith("/")
    database: dict[str, object] = {
        # dagster-postgres speaks psycopg2's dialect; SQLAlchemy 2.1 takes the plain scheme for psycopg 3.
        "scheme": "postgresql+psycopg2",
        "hostname": "" if is_socket_folder else host,
        "port": settings.dagster_pg_port,
        "db_name": settings.dagster_pg_db,
        "username": settings.dagster_pg_username,
        "params": {"host": host} if is_socket_folder else {},
    }
    if settings.dagster_pg_password:
        # Dagster reads the variable itself, and strips nothing.
        os.environ["DAGSTER_PG_PASSWORD"] = settings.dagster_pg_password.get_secret_value()
        database["password"] = {"env": "DAGSTER_PG_PASSWORD"}
    return database
