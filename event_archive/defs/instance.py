"""Dagster's instance. Here: where Dagster keeps its own records, for ``dagster.yaml``, which knows no conditions.

Not here: the instance's other settings, which stand in ``dagster.yaml``; anything of events.

``storage: {custom: ...}`` in ``dagster.yaml`` cannot do this: a custom storage never learns the folder in which SQLite
would lie. ``instance_class`` supplies the defaults, so the instance's reference, which run workers are started with,
names Dagster's own storage classes. The password is in it as the name of its variable.
"""

import json
import os
from collections.abc import Mapping
from typing import Annotated

from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData
from pydantic import Field, SecretStr

from event_archive.settings import _EnvironmentSettings


# MOVE to settings.py (house rule 8), then import it from there: the class, `import os`, Annotated, Field, SecretStr.
class InstanceSettings(_EnvironmentSettings):
    """Where Dagster keeps its own records: in PostgreSQL if there is a host, else in files.

    The attributes are the variables of the same name.
    """

    dagster_pg_host: str | None = None
    dagster_pg_port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    dagster_pg_db: str | None = None
    dagster_pg_username: str | None = None
    dagster_pg_password: SecretStr | None = None

    @classmethod
    def _contradictions(cls) -> list[str]:
        names = ("DAGSTER_PG_HOST", "DAGSTER_PG_DB", "DAGSTER_PG_USERNAME")
        absent = [name for name in names if not os.environ.get(name)]
        if len(absent) in (0, len(names)):
            return []
        given = [name for name in names if name not in absent]
        problem = (
            f"{', '.join(given)}: set, {', '.join(absent)}: not set. Set all three to keep Dagster's own records in "
            "PostgreSQL, or none to keep them as files in DAGSTER_HOME."
        )
        return [problem]


_POSTGRES_CLASSES = {
    "storage": "DagsterPostgresStorage",
    "run_storage": "PostgresRunStorage",
    "event_log_storage": "PostgresEventLogStorage",
    "schedule_storage": "PostgresScheduleStorage",
}


class ArchiveInstance(DagsterInstance):
    """PostgreSQL storage where ``DAGSTER_PG_HOST`` is set, else SQLite in the instance's folder."""

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
        defaults = InstanceRef.config_defaults(base_dir)
        settings = InstanceSettings.load()
        if not settings.dagster_pg_host:
            return defaults
        # JSON is YAML, which is what Dagster reads this as.
        config = json.dumps({"postgres_db": _postgres_db(settings)})
        parts = {
            part: ConfigurableClassData("dagster_postgres", class_name, config)
            for part, class_name in _POSTGRES_CLASSES.items()
        }
        return {**defaults, **parts}


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
        database["password"] = {"env": "DAGSTER_PG_PASSWORD"}
    return database
