"""The services that the settings name: the primary, the replica, the lake. Not here: the settings, what services do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from event_archive.config.environment import PipelineSettings, Settings
from event_archive.domain.dataset import Dataset
from event_archive.lake.protocol import Lake
from event_archive.postgres.session import Postgres


def primary(settings: Settings) -> Postgres:
    """The events database."""
    variable = variable_of(settings, "pg_connection_string")
    return Postgres(settings.pg_connection_string.get_secret_value(), settings.pg_auth, variable=variable)


def with_primaries(datasets: Iterable[PipelineSettings]) -> list[tuple[Dataset, Postgres]]:
    """Some datasets, each with its events database."""
    return [(of.dataset, primary(of.with_secrets())) for of in datasets]


def replica(settings: Settings) -> Postgres | None:
    """The replica that a day's first export reads; None where none is configured."""
    secret = settings.export_pg_connection_string
    if secret is None:
        return None
    variable = variable_of(settings, "export_pg_connection_string")
    return Postgres(secret.get_secret_value(), settings.pg_auth, variable=variable)


def variable_of(settings: PipelineSettings, field: str) -> str:
    """The variable that a field of these settings is read from."""
    return dict(settings.entry.variables).get(field, field.upper())


@contextmanager
def lake(settings: Settings) -> Iterator[Lake]:
    """The lake that the settings name, its connections closed at the end."""
    # Only the lake that is used is imported: Azure's client alone takes 0.3 s of CPU.
    if settings.archive_local_path is not None:
        from event_archive.lake.local.folder import LocalLake

        yield LocalLake(settings.archive_local_path)
    elif settings.azure_storage_connection_string is not None:
        from event_archive.lake.azure.container import AzureLake

        secret = settings.azure_storage_connection_string.get_secret_value()
        with AzureLake.from_connection_string(secret, settings.azure_storage_container) as opened:
            yield opened
    elif settings.azure_storage_account_url is not None:
        from event_archive.lake.azure.container import AzureLake

        url = settings.azure_storage_account_url
        with AzureLake.from_account_url(url, settings.azure_storage_container) as opened:
            yield opened
    else:
        raise AssertionError("the settings name no lake")
