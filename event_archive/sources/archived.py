"""Which datasets archive the table that a source fills. Not here: which of its days are aged (``runs``)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from event_archive.config.datasets import archiving
from event_archive.config.environment import PipelineSettings
from event_archive.config.services import variable_of
from event_archive.config.variables import value_of
from event_archive.domain.dataset import Dataset, TableName
from event_archive.errors import ConfigurationError, UnreachableError
from event_archive.postgres.catalogue.server import identity
from event_archive.postgres.session import Postgres


@dataclass
class ArchivedHere:
    """Those of some datasets that archive a source's table: of the source's database, by whatever address.

    A pooler's port, an alias and an IP address lead to one database, and only its server knows. It is asked when the
    datasets are first gone through, and once; not at all where the settings tell.

    Attributes:
        postgres: the source's database.
        table: that it fills.
        settings: of all datasets.
    """

    postgres: Postgres
    table: TableName
    settings: Iterable[PipelineSettings]

    def __iter__(self) -> Iterator[Dataset]:
        """Goes through them.

        Raises:
            ConfigurationError: a dataset archives a table of this name, and its database is not named here.
            UnreachableError, RefusedError: as PostgreSQL says.
        """
        return iter(self._found)

    @cached_property
    def _found(self) -> list[Dataset]:
        of_table = [of for of in self.settings if of.dataset.table == self.table]
        told = archiving(self.table, of_table)
        return [of.dataset for of in of_table if of in told or self._is_of_this_database(of)]

    def _is_of_this_database(self, settings: PipelineSettings) -> bool:
        variable = variable_of(settings, "pg_connection_string")
        if not value_of(variable):
            raise ConfigurationError(
                f"The dataset {settings.dataset.name} archives {self.table} of the database that {variable} names, and "
                f"{variable} is not set: whether that is the table which this source fills cannot be told, nor which "
                f"of its days are archived. Set {variable} here, too; where it is another database's table, let this "
                "source have a DATASETS_FILE without it."
            )
        there = replace(self.postgres, conninfo=value_of(variable), variable=variable)
        # Both connections stand before either is asked: no restart in between makes one server look like two.
        with (
            self.postgres.transaction(str(self.table)) as ours,
            there.transaction(str(self.table)) as theirs,
        ):
            there_is, here_is = identity(theirs), identity(ours)
        if there_is.database != here_is.database or there_is.started == here_is.started:
            return there_is.database == here_is.database
        # Copies of a server share its system identifier, which not every role may see; none of them began with it.
        may_follow = there_is.system == here_is.system or not (there_is.system and here_is.system)
        if may_follow and (there_is.is_standby or here_is.is_standby):
            raise UnreachableError(
                f"The dataset {settings.dataset.name} archives {self.table} of the database that {variable} names, and "
                f"that server or {self.postgres.variable}'s is a standby, perhaps of the other: which days of this "
                "table are archived cannot be told. Both must name the primary."
            )
        return False
