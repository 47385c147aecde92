"""What every operation works on: a dataset, with the database of its rows and the lake of its files.

Not here: how the environment names them (``config.services``).
"""

from dataclasses import dataclass, field

from event_archive.domain.dataset import Dataset
from event_archive.domain.source import Claim
from event_archive.lake.protocol import Lake
from event_archive.postgres.catalogue.server import Identity
from event_archive.postgres.session import Postgres


@dataclass(frozen=True, slots=True)
class Site:
    """The dataset, with its database and its lake.

    Attributes:
        dataset: what is archived.
        postgres: the primary, from which rows are deleted.
        lake: where the files lie.
        export_postgres: a replica, for a day's first file only; it may lag. None where the primary is read.
        claims: those that were found to hold, by the database that asked and the ETag of the marker that it found, so
            that a run reads each marker once.
    """

    dataset: Dataset
    postgres: Postgres
    lake: Lake
    export_postgres: Postgres | None = None
    claims: dict[tuple[Identity, str], Claim] = field(default_factory=dict, compare=False, repr=False)
